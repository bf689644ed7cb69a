//! A bounded number of seats that addresses share fairly: connections, bodies that are awaited.
//!
//! An address has a share before there is a total. Where everything is taken, the address that has most of it gives up
//! its oldest seat, so no number of seats of one address keeps another address out. It knows nothing of what a seat is for.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Seats.
#[derive(Debug)]
pub struct Seats {
    most: usize,
    most_of_an_address: usize,
    /// How often the seats of all addresses are in use.
    uses: Arc<AtomicUsize>,
    table: Mutex<Table>,
}

/// A seat, taken until it is dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    /// `None` for a seat that counts in the total alone.
    address: Option<IpAddr>,
    place: Arc<Place>,
}

/// What a seat's holder does with it.
#[derive(Debug, Default)]
pub struct Place {
    uses: AtomicUsize,
    /// How often the seats of its address are in use, and those of all.
    of_address: Arc<AtomicUsize>,
    of_all: Arc<AtomicUsize>,
    gives_way: Notify,
}

/// A seat is in use until this is dropped: it gives way only to an address that has far less.
#[derive(Debug)]
pub struct InUse(Arc<Place>);

/// Why there is no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The address has its share, and uses all of it.
    Address,
    /// All are taken, and nobody has more than this address.
    Total,
}

#[derive(Debug, Default)]
struct Table {
    taken: usize,
    /// The seats of each address.
    rows: HashMap<IpAddr, Row>,
    /// Each address with how many seats it has: the last one has most.
    by_count: BTreeSet<(usize, IpAddr)>,
}

#[derive(Debug, Default)]
struct Row {
    /// The oldest first.
    places: Vec<Arc<Place>>,
    uses: Arc<AtomicUsize>,
}

/// How many of `most` places one may have while so many are free: what is free, times the square of the part that is. The
/// less is free, the less may one have: after n that took all they could, about √(1/(1 + 2n)) is free.
#[must_use]
pub fn share(free: usize, most: usize) -> usize {
    let (free, most) = (free as u128, most.max(1) as u128);
    usize::try_from((free * free * free).div_ceil(most * most)).unwrap_or(usize::MAX)
}

impl Seats {
    /// So many seats in all, and so many for one address.
    #[must_use]
    pub fn new(most: usize, most_of_an_address: usize) -> Self {
        Self { most, most_of_an_address, uses: Arc::default(), table: Mutex::default() }
    }

    /// Takes a seat for an address. The oldest seat that is not in use gives way if the address has its share already;
    /// if all are taken, that of the address that has most.
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Result<Seat, Full> {
        let mut table = self.lock();
        let own = table.count(address);
        if own >= self.most_of_an_address {
            table.vacate(address, Of::Idle).ok_or(Full::Address)?;
        } else if table.taken >= self.most {
            table.make_room(own, address)?;
        }
        let place = table.change(address, |row| {
            let place = Arc::new(self.place(row.uses.clone()));
            row.places.push(place.clone());
            place
        });
        table.taken += 1;
        drop(table);
        Ok(Seat { seats: self.clone(), address: Some(address), place })
    }

    /// Takes a seat for one who stands for many addresses: it counts in the total alone, and never gives way.
    pub fn take_for_many(self: &Arc<Self>) -> Result<Seat, Full> {
        let mut table = self.lock();
        if table.taken >= self.most {
            let heaviest = table.by_count.last().copied().filter(|(most, _)| *most > 1);
            let (most, address) = heaviest.ok_or(Full::Total)?;
            table.vacate(address, Of::either(most > 2)).ok_or(Full::Total)?;
        }
        table.taken += 1;
        drop(table);
        Ok(Seat { seats: self.clone(), address: None, place: Arc::new(self.place(Arc::default())) })
    }

    fn place(&self, of_address: Arc<AtomicUsize>) -> Place {
        Place { of_address, of_all: self.uses.clone(), ..Place::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which seats may have to give way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// Those that are not in use.
    Idle,
    /// Those first, then any.
    All,
}

impl Of {
    fn either(all: bool) -> Self {
        if all { Self::All } else { Self::Idle }
    }
}

impl Table {
    fn count(&self, address: IpAddr) -> usize {
        self.rows.get(&address).map_or(0, |row| row.places.len())
    }

    /// Makes room for one more seat of an address that has `own`.
    fn make_room(&mut self, own: usize, address: IpAddr) -> Result<(), Full> {
        let (most, heaviest) = self.by_count.last().copied().ok_or(Full::Total)?;
        let from = if most > own { heaviest } else { address };
        self.vacate(from, Of::either(most > own + 1)).ok_or(Full::Total)
    }

    /// Has the oldest seat of an address give way; `None` if there is none to.
    fn vacate(&mut self, address: IpAddr, of: Of) -> Option<()> {
        let row = &self.rows.get(&address)?.places;
        let idle = row.iter().position(|place| place.uses.load(Ordering::Relaxed) == 0);
        let oldest = idle.or((of == Of::All && !row.is_empty()).then_some(0))?;
        self.change(address, |row| row.places.remove(oldest).gives_way.notify_one());
        self.taken -= 1;
        Some(())
    }

    /// Changes the seats of an address; nothing is remembered of one that has none.
    fn change<T>(&mut self, address: IpAddr, change: impl FnOnce(&mut Row) -> T) -> T {
        let row = self.rows.entry(address).or_default();
        let before = row.places.len();
        let result = change(row);
        let after = row.places.len();
        self.by_count.remove(&(before, address));
        if after == 0 {
            self.rows.remove(&address);
        } else {
            self.by_count.insert((after, address));
        }
        result
    }

    /// Takes back a seat, unless it has given way before.
    fn give_back(&mut self, address: IpAddr, place: &Arc<Place>) {
        let row = self.rows.get(&address);
        let at = row.and_then(|row| row.places.iter().position(|one| Arc::ptr_eq(one, place)));
        let Some(at) = at else { return };
        self.change(address, |row| drop(row.places.remove(at)));
        self.taken -= 1;
    }
}

impl Seat {
    /// Returns when the seat is needed by another: it counts no more, and its holder has to leave.
    pub async fn gives_way(&self) {
        self.place.gives_way.notified().await;
    }

    /// For saying when the seat is in use.
    #[must_use]
    pub fn place(&self) -> Arc<Place> {
        self.place.clone()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.seats.lock();
        match self.address {
            Some(address) => table.give_back(address, &self.place),
            None => table.taken -= 1,
        }
    }
}

impl Place {
    /// The seat is in use until the result is dropped; once more if it is already.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> InUse {
        for uses in [&self.uses, &self.of_address, &self.of_all] {
            uses.fetch_add(1, Ordering::Relaxed);
        }
        InUse(self.clone())
    }
}

impl InUse {
    /// How often the seats of this address are in use, and those of all: this use included.
    #[must_use]
    pub fn of_address_and_all(&self) -> (usize, usize) {
        (self.0.of_address.load(Ordering::Relaxed), self.0.of_all.load(Ordering::Relaxed))
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        for uses in [&self.0.uses, &self.0.of_address, &self.0.of_all] {
            uses.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use proptest::prelude::*;

    fn address(n: u8) -> IpAddr {
        [192, 0, 2, n].into()
    }

    fn has_to_leave(seat: &Seat) -> bool {
        seat.gives_way().now_or_never().is_some()
    }

    #[test]
    fn an_address_has_as_many_seats_as_allowed_and_then_its_oldest_idle_one_gives_way() {
        let seats = Arc::new(Seats::new(10, 2));
        let first = seats.take(address(1)).unwrap();
        let answering = first.place().begin();
        let second = seats.take(address(1)).unwrap();
        let third = seats.take(address(1)).unwrap();
        assert_eq!((has_to_leave(&first), has_to_leave(&second), has_to_leave(&third)), (false, true, false));
        let also = third.place().begin();
        assert_eq!(seats.take(address(1)).unwrap_err(), Full::Address, "both are in use");
        assert!(seats.take(address(2)).is_ok(), "another address has a share of its own");
        drop((answering, also));
        drop((first, second, third));
        let table = seats.lock();
        assert_eq!((table.taken, table.rows.len(), table.by_count.len()), (0, 0, 0), "nothing is remembered");
    }

    #[test]
    fn where_all_are_taken_the_address_with_most_gives_way_even_if_it_uses_what_it_has() {
        let seats = Arc::new(Seats::new(4, 4));
        let greedy: Vec<_> = (0..4).map(|_| seats.take(address(1)).unwrap()).collect();
        let _uses: Vec<_> = greedy.iter().map(|seat| seat.place().begin()).collect();
        let late = seats.take(address(2)).expect("a newcomer gets in");
        let _use = late.place().begin();
        assert!(has_to_leave(&greedy[0]));
        let later = seats.take(address(3)).expect("and another");
        let _use = later.place().begin();
        assert!(has_to_leave(&greedy[1]));
        assert_eq!(seats.take(address(2)).unwrap_err(), Full::Total, "nobody has more than a share");
        assert!(!has_to_leave(&late) && !has_to_leave(&later));
    }

    #[test]
    fn whoever_stands_for_many_never_gives_way_and_pushes_out_nobody_with_a_single_seat() {
        let seats = Arc::new(Seats::new(3, 3));
        let proxy = seats.take_for_many().unwrap();
        let one: Vec<_> = (0..2).map(|_| seats.take(address(1)).unwrap()).collect();
        let another = seats.take_for_many().expect("of two one gives way");
        assert!(has_to_leave(&one[0]) && !has_to_leave(&one[1]));
        assert_eq!(seats.take_for_many().unwrap_err(), Full::Total);
        let own = seats.take(address(1)).expect("an address can always change places with itself");
        assert!(has_to_leave(&one[1]));
        drop((proxy, another, own, one));
        assert_eq!(seats.lock().taken, 0);
    }

    #[test]
    fn uses_are_counted_by_address_and_in_all() {
        let seats = Arc::new(Seats::new(10, 10));
        let [one, two, other] = [1, 1, 2].map(|n| seats.take(address(n)).unwrap());
        let first = one.place().begin();
        let (second, third) = (two.place().begin(), other.place().begin());
        assert_eq!((second.of_address_and_all(), third.of_address_and_all()), ((2, 3), (1, 3)));
        drop(first);
        assert_eq!((second.of_address_and_all(), third.of_address_and_all()), ((1, 2), (1, 2)));
    }

    #[test]
    fn a_hundred_who_take_their_share_leave_one_for_others() {
        let (most, mut free) = (1 << 16, 1 << 16);
        for greedy in 0..100 {
            let mut own = 0;
            while own < share(free, most) {
                (own, free) = (own + 1, free - 1);
            }
            assert!(greedy > 0 || (most / 4..most / 2).contains(&own), "the first had {own}");
        }
        assert!(share(free, most) > 10, "{free} are free, of which one may have {}", share(free, most));
        assert_eq!((share(0, most), share(1, most), share(most, most)), (0, 1, most));
    }

    proptest! {
        #[test]
        fn one_greedy_address_keeps_nobody_out(steps in proptest::collection::vec((0u8..6, any::<bool>()), 1..120)) {
            let seats = Arc::new(Seats::new(12, 12));
            let greedy: Vec<_> = (0..12).map(|_| seats.take(address(255)).unwrap()).collect();
            let _uses: Vec<_> = greedy.iter().map(|seat| seat.place().begin()).collect();
            let mut held: Vec<(u8, Seat)> = Vec::new();
            for (who, leaves) in steps {
                // Each of six honest addresses holds at most one: all together fit beside the greedy one.
                held.retain(|(one, _)| *one != who);
                if !leaves {
                    held.push((who, seats.take(address(who)).expect("a seat")));
                }
                prop_assert!(held.iter().all(|(_, seat)| !has_to_leave(seat)), "an honest one was sent away");
                let table = seats.lock();
                let counted: usize = table.by_count.iter().map(|(count, _)| count).sum();
                prop_assert_eq!(counted, table.taken);
                prop_assert!(table.taken <= 12);
            }
        }
    }
}

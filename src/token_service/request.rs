//! What every endpoint with client authentication begins with: the body, read within its limits.
//!
//! Nearly every body comes with its header. One that does not is awaited, in one of a bounded number of seats: who sends
//! slowly takes no memory from others, because a seat gives way to whoever needs it more.

use std::net::{IpAddr, Ipv6Addr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use http::{HeaderMap, Version, header, request};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Incoming};
use tokio::time::timeout;

use super::form::query_has_credentials;
use super::issuer::Issuer;
use super::metrics::Endpoint;
use super::peer::{Credit, Peer, Sender};
use super::refusal::Refusal;
use super::service::Service;
use crate::seats::{Seat, Seats};

/// The largest body of a request for a token: a client assertion and a little more.
pub const LARGEST_BODY_BYTES: usize = 16 * 1024;
/// The largest body of a request about a token, which may be the longest that is issued.
pub const LARGEST_BODY_WITH_TOKEN_BYTES: usize = 64 * 1024;
/// How many bodies are awaited at the same time: 16 MiB if all are as long as can be.
const AWAITED_BODIES: usize = 256;
/// How many of one address.
const AWAITED_BODIES_OF_AN_ADDRESS: usize = 64;

const FORM: &[u8] = b"application/x-www-form-urlencoded";

/// A request whose body has arrived.
pub(super) struct Received<'a> {
    /// The server that it is for.
    pub(super) issuer: &'a Issuer,
    /// Its header; the extensions hold who sent it.
    pub(super) parts: &'a request::Parts,
    /// Its body.
    pub(super) body: Bytes,
}

impl Received<'_> {
    /// Who sent it.
    pub(super) fn peer(&self) -> Option<&Peer> {
        sender(self.parts).map(|sender| &sender.peer)
    }

    /// What its connection may still try.
    pub(super) fn credit(&self) -> Option<&Credit> {
        sender(self.parts).map(|sender| &*sender.credit)
    }
}

fn sender(parts: &request::Parts) -> Option<&Sender> {
    parts.extensions.get()
}

/// Where a request came from, as it is counted; the unspecified address for what no connection has brought.
pub(super) fn counted_address(parts: &request::Parts) -> IpAddr {
    sender(parts).map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |sender| sender.counted_as)
}

/// The bodies that are awaited.
#[derive(Debug)]
pub(super) struct Bodies {
    seats: Arc<Seats>,
    within: Duration,
}

impl Bodies {
    /// A body may take so long.
    pub(super) fn new(within: Duration) -> Self {
        Self { seats: Arc::new(Seats::new(AWAITED_BODIES, AWAITED_BODIES_OF_AN_ADDRESS)), within }
    }

    /// Awaits a body of an address.
    async fn awaited<T>(&self, address: IpAddr, body: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
        let seat: Seat = self.seats.take(address).map_err(|_| Refusal::Overloaded)?;
        tokio::select! {
            biased;
            () = seat.gives_way() => Err(Refusal::Overloaded),
            read = timeout(self.within, body) => read.map_err(|_| Refusal::BodyTimeout)?,
        }
    }
}

/// Reads the body, of the right type and within its limits.
pub(super) async fn receive<'a>(
    service: &Service,
    (issuer, endpoint): (&'a Issuer, Endpoint),
    parts: &'a request::Parts,
    body: Incoming,
) -> Result<Received<'a>, Refusal> {
    if parts.uri.query().is_some_and(query_has_credentials) {
        return Err(Refusal::CredentialsInQuery);
    }
    if !is_form(&parts.headers) {
        return Err(Refusal::ContentType);
    }
    let most = match endpoint {
        Endpoint::Introspection | Endpoint::Revocation => LARGEST_BODY_WITH_TOKEN_BYTES,
        Endpoint::Token | Endpoint::Authorization | Endpoint::Jwks | Endpoint::Metadata | Endpoint::OpenIdMetadata => {
            LARGEST_BODY_BYTES
        }
    };
    if body.size_hint().lower() > most as u64 {
        return Err(Refusal::BodyTooLarge);
    }
    let mut reading = pin!(read(body, most));
    // Nearly every body has come with its header: then there is nothing to time.
    let body = if let Some(result) = reading.as_mut().now_or_never() {
        result?
    } else {
        let late = Box::pin(service.bodies.awaited(counted_address(parts), reading)).await?;
        // Those whose bodies were awaited can come all at once, too.
        service.queue.turn().await?;
        late
    };
    Ok(Received { issuer, parts, body })
}

/// Reads a body. One that comes in a single piece is that piece; of several, what holds them is let go with each: a piece of
/// one byte may hold a buffer of many thousands.
async fn read<B: Body<Data = Bytes>>(body: B, most: usize) -> Result<Bytes, Refusal> {
    let mut body = pin!(body);
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        // Trailers are nothing to us.
        let Ok(piece) = frame.map_err(|_| Refusal::BodyMalformed)?.into_data() else { continue };
        if whole.len() + piece.len() > most {
            return Err(Refusal::BodyTooLarge);
        }
        if whole.is_empty() && body.is_end_stream() {
            return Ok(piece);
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

/// Lets a body come for nothing. An HTTP/1.1 connection on which it is left unread is reset, and an answer may be lost with
/// it; with HTTP/2 an answer may come first (RFC 9113 §8.1), and what comes after it is dropped.
pub(super) async fn discard(service: &Service, parts: &request::Parts, mut body: Incoming) {
    if body.is_end_stream() || parts.version == Version::HTTP_2 {
        return;
    }
    let frame = body.frame().now_or_never();
    // As above: nearly every body has come, and in one piece.
    if matches!(frame, Some(Some(Ok(_)))) && body.is_end_stream() {
        return;
    }
    let mut left = LARGEST_BODY_BYTES;
    let rest = async {
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            left = left.checked_sub(bytes).ok_or(Refusal::BodyTooLarge)?;
        }
        Ok(())
    };
    // What does not come in time, or is too much, is left unread after all.
    let _ = Box::pin(service.bodies.awaited(counted_address(parts), rest)).await;
}

/// One `Content-Type`, with or without parameters (RFC 9110 §8.3.1).
fn is_form(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (types.next(), types.next()) else { return false };
    let media_type = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    media_type.trim_ascii().eq_ignore_ascii_case(FORM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use http::HeaderValue;
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;

    #[tokio::test]
    async fn a_body_that_is_awaited_holds_its_own_bytes_and_not_the_buffers_that_they_came_in() {
        let buffer = Bytes::from(vec![b'a'; 64 * 1024]);
        let pieces = (0..100).map(|n| Ok::<_, std::convert::Infallible>(Frame::data(buffer.slice(n..=n))));
        let never = stream::pending();
        let body = StreamBody::new(stream::StreamExt::chain(stream::iter(pieces.collect::<Vec<_>>()), never));
        let mut reading = pin!(read(body, 200));
        assert!(reading.as_mut().now_or_never().is_none(), "more is to come");
        assert!(buffer.is_unique(), "nothing of it is held");
    }

    #[tokio::test]
    async fn a_body_in_one_piece_is_not_copied_and_one_that_is_too_long_is_not_kept() {
        let text = Bytes::from(vec![b'a'; 100]);
        let read_of = async |most| read(Full::new(text.clone()), most).await;
        assert_eq!(read_of(100).await.unwrap().as_ptr(), text.as_ptr());
        assert_eq!(read_of(99).await, Err(Refusal::BodyTooLarge));
        assert_eq!(read(Full::new(Bytes::new()), 0).await, Ok(Bytes::new()));
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_that_never_come_keep_nobody_else_waiting() {
        let (bodies, greedy) = (Bodies::new(Duration::from_secs(10)), IpAddr::from([192, 0, 2, 1]));
        let never = std::future::pending::<Result<(), Refusal>>;
        let mut waiting: Vec<_> =
            (0..AWAITED_BODIES_OF_AN_ADDRESS).map(|_| Box::pin(bodies.awaited(greedy, never()))).collect();
        for waits in &mut waiting {
            assert!(waits.now_or_never().is_none());
        }
        for honest in [greedy, IpAddr::from([192, 0, 2, 2])] {
            let late = async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(7)
            };
            assert_eq!(bodies.awaited(honest, late).await, Ok(7));
        }
        assert_eq!((&mut waiting[0]).now_or_never(), Some(Err(Refusal::Overloaded)), "the oldest gave way");
        assert!((&mut waiting[1]).now_or_never().is_none());
        assert_eq!(bodies.awaited(greedy, never()).await, Err(Refusal::BodyTimeout));
    }

    #[test]
    fn a_form_has_one_content_type_in_any_case_with_or_without_parameters() {
        let is_form = |types: &[&'static str]| {
            let pairs = types.iter().map(|value| (header::CONTENT_TYPE, HeaderValue::from_static(value)));
            is_form(&pairs.fold(HeaderMap::new(), |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            }))
        };
        let form = "application/x-www-form-urlencoded";
        assert!(is_form(&[form]));
        assert!(is_form(&["Application/X-WWW-Form-Urlencoded ; charset=UTF-8"]));
        assert!(!is_form(&[form, form]));
        assert!(!is_form(&["application/json"]));
        assert!(!is_form(&[]));
    }
}

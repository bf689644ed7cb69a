//! Texts that very many clients have in common, names of credential entries and scopes, are held once.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The longest text that is shared, in bytes: longer ones are rarely the same.
const LONGEST_BYTES: usize = 256;

/// How many texts are remembered; one more, and remembering begins anew. That forgets no text, only that it can be shared.
const MOST_TEXTS: usize = 4096;

/// Texts in use, and some that were.
#[derive(Debug, Default)]
pub struct Texts(Mutex<HashSet<Arc<str>>>);

impl Texts {
    /// The text, the same one for as many as ask for it.
    #[must_use]
    pub fn shared(&self, text: &str) -> Arc<str> {
        if text.len() > LONGEST_BYTES {
            return text.into();
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(text) {
            return known.clone();
        }
        if known.len() == MOST_TEXTS {
            known.clear();
        }
        let text: Arc<str> = text.into();
        known.insert(text.clone());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_held_once_and_what_is_remembered_is_bounded() {
        let texts = Texts::default();
        let (first, again, other) = (texts.shared("web"), texts.shared("web"), texts.shared("api"));
        assert!(Arc::ptr_eq(&first, &again) && !Arc::ptr_eq(&first, &other) && &*other == "api");
        let long = "x".repeat(LONGEST_BYTES + 1);
        assert_eq!(&*texts.shared(&long), long);
        assert!(!Arc::ptr_eq(&texts.shared(&long), &texts.shared(&long)));
        for n in 0..2 * MOST_TEXTS {
            assert_eq!(*texts.shared(&n.to_string()), *n.to_string());
            assert!(texts.0.lock().unwrap().len() <= MOST_TEXTS);
        }
        assert_eq!((&*first, &*texts.shared("web")), ("web", "web"));
    }
}

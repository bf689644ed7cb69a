//! A message to a person, about a field or about an object as a whole.

use std::fmt;

/// What is wrong, why, and what to do.
///
/// Displayed as conditions and Events have it: `Field spec.clientID: shop is not allowed …`. The field stands apart, so that
/// `appreg lint` can point at its line without reading it out of the text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    /// The field's path, such as `spec.credentials[web].secretName`: credentials by their names, other items by their
    /// index. `None` where the message is about the object as a whole.
    pub field: Option<String>,
    /// The text: a sentence that begins with a capital letter, or what is to be said of the field. Never a credential.
    pub text: String,
}

impl Message {
    /// A message about the object as a whole, which begins with a capital letter.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self { field: None, text: text.into() }
    }

    /// A message about a field.
    #[must_use]
    pub fn of_field(field: impl Into<String>, text: impl Into<String>) -> Self {
        Self { field: Some(field.into()), text: text.into() }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            Some(field) => write!(out, "Field {field}: {}", self.text),
            None => out.write_str(&self.text),
        }
    }
}

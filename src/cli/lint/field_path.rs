//! Where a field is in an object, written as the API server writes it: `spec.credentials[0].name`.

use std::fmt;

/// A field of an object. The empty path is the object itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldPath(Vec<Segment>);

/// A step into an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Segment {
    Name(String),
    Index(usize),
}

impl FieldPath {
    /// The path of a field of what this one names.
    #[must_use]
    pub fn field(&self, name: &str) -> Self {
        self.then(Segment::Name(name.to_owned()))
    }

    /// The path of an item of the list that this one names.
    #[must_use]
    pub fn item(&self, index: usize) -> Self {
        self.then(Segment::Index(index))
    }

    /// The path below this one that is written as names with dots between them, as in `.spec.credentials`.
    #[must_use]
    pub fn below(&self, dotted: &str) -> Self {
        dotted.split('.').filter(|name| !name.is_empty()).fold(self.clone(), |path, name| path.field(name))
    }

    /// The path as text, in which `[]` stands for any item of a list.
    pub(super) fn without_numbers(&self) -> String {
        let any_item = |segment: &Segment| match segment {
            Segment::Name(name) => format!(".{name}"),
            Segment::Index(_) => "[]".to_owned(),
        };
        self.0.iter().map(any_item).collect::<String>().trim_start_matches('.').to_owned()
    }

    /// The path of what this one is a field or an item of.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (_, above) = self.0.split_last()?;
        Some(Self(above.to_vec()))
    }

    fn then(&self, segment: Segment) -> Self {
        let mut path = self.clone();
        path.0.push(segment);
        path
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Name(name) if number == 0 => out.write_str(name)?,
                Segment::Name(name) => write!(out, ".{name}")?,
                Segment::Index(index) => write!(out, "[{index}]")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_written_as_the_api_server_writes_it() {
        let entry = FieldPath::default().below(".spec.credentials").item(0);
        assert_eq!(entry.field("name").to_string(), "spec.credentials[0].name");
        assert_eq!(entry.field("name").without_numbers(), "spec.credentials[].name");
        assert_eq!(entry.parent().unwrap().to_string(), "spec.credentials");
        assert_eq!(FieldPath::default().to_string(), "");
        assert_eq!(FieldPath::default().parent(), None);
    }
}

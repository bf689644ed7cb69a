//! Reads what is named on the command line.

use std::io::Read;
use std::path::Path;

use super::input::{FILE_BYTES, Unreadable};

/// A file and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// As it was named; `-` is standard input.
    pub name: String,
    /// What stands in it.
    pub text: Result<String, Unreadable>,
}

/// Reads a file, or `input` where its name is `-`.
pub fn read(name: &Path, input: &mut dyn Read) -> File {
    let text = if name == Path::new("-") { text(input) } else { file(name) };
    File { name: name.display().to_string(), text }
}

fn file(name: &Path) -> Result<String, Unreadable> {
    let metadata = std::fs::metadata(name).map_err(|error| refused(format!("cannot be read: {error}")))?;
    if metadata.is_dir() {
        return Err(refused(format!(
            "is a directory: name its files, as in {0}/*.yaml, or what becomes of them, as in kustomize build {0} | appreg lint -",
            name.display()
        )));
    }
    let mut file = std::fs::File::open(name).map_err(|error| refused(format!("cannot be read: {error}")))?;
    text(&mut file)
}

fn text(input: &mut dyn Read) -> Result<String, Unreadable> {
    let mut bytes = Vec::new();
    let read = input.take(FILE_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| refused(format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > FILE_BYTES {
        return Err(refused(format!("is larger than {FILE_BYTES} bytes: split it")));
    }
    String::from_utf8(bytes).map_err(|_| refused("is not UTF-8: save it as UTF-8".to_owned()))
}

fn refused(message: String) -> Unreadable {
    Unreadable { place: None, message }
}

//! The watch loop against the fake API server.

//! An open watch.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::{FakeApi, request::Selects, world::status};

pub(super) struct Watcher {
    pub(super) server: FakeApi,
    pub(super) stirred: watch::Receiver<u64>,
    pub(super) selects: Selects,
    pub(super) from: u64,
    /// How much of the history has been read.
    pub(super) read: usize,
    pub(super) reign: u64,
    pub(super) bookmarks: u64,
    pub(super) ends: tokio::time::Instant,
    pub(super) ready: VecDeque<Value>,
    pub(super) expired: bool,
    pub(super) over: bool,
}

impl Watcher {
    pub(super) async fn next(&mut self) -> Option<io::Result<Value>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            if self.over {
                return None;
            }
            if self.expired {
                // A real server accepts the watch first, and takes it back a moment later.
                tokio::time::sleep(Duration::from_millis(20)).await;
                self.over = true;
                let gone = status(410, "Expired", "too old resource version", json!({}));
                return Some(Ok(json!({"type": "ERROR", "object": gone})));
            }
            self.stirred.borrow_and_update();
            if let Err(error) = self.look() {
                self.over = true;
                return Some(Err(error));
            }
            if self.over || !self.ready.is_empty() {
                continue;
            }
            tokio::select! {
                _ = self.stirred.changed() => {}
                () = tokio::time::sleep_until(self.ends) => {
                    let version = self.server.version();
                    self.push_bookmark(version);
                    self.over = true;
                }
            }
        }
    }

    fn look(&mut self) -> io::Result<()> {
        let world = Arc::clone(&self.server.world);
        let world = world.lock().unwrap();
        if self.reign != world.reign {
            self.over = true;
            return if world.broken { Err(io::Error::other("connection reset")) } else { Ok(()) };
        }
        if !world.held {
            let news = world.history[self.read..].iter().filter(|happened| happened.version > self.from);
            self.ready.extend(news.filter_map(|happened| self.selects.event(happened)));
            self.read = world.history.len();
        }
        if self.bookmarks != world.bookmarks {
            self.bookmarks = world.bookmarks;
            self.push_bookmark(world.version);
        }
        Ok(())
    }

    /// Like a real server, never one from before the watch.
    fn push_bookmark(&mut self, version: u64) {
        if version >= self.from {
            let object = json!({"apiVersion": self.selects.api_version, "kind": "Bookmark",
                "metadata": {"resourceVersion": version.to_string()}});
            self.ready.push_back(json!({"type": "BOOKMARK", "object": object}));
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Ok(mut world) = self.server.world.lock() {
            world.open -= 1;
        }
    }
}

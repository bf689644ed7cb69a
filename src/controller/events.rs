//! Kubernetes Events: best effort, bounded in number, never waited for.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Resource as _};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::api::AppRegistration;
use crate::clock::Clock;
use crate::kubernetes::client::{ANSWER_WITHIN, Clients, call};
use crate::plan::{Notice, Severity};

/// The most Events that wait to be sent; further ones are dropped.
const MOST_WAITING: usize = 256;
/// At most one Event in this time, after a burst that filled the queue.
const PACE: Duration = Duration::from_millis(50);
/// The longest note the API allows, in bytes.
const LONGEST_NOTE_BYTES: usize = 1024;

/// Where Events are put.
#[derive(Clone)]
pub(crate) struct Events {
    queue: mpsc::Sender<(ObjectReference, Notice)>,
}

impl Events {
    /// The queue and the work that sends what is in it until the queue is closed.
    pub(crate) fn new(clients: Clients, clock: Arc<dyn Clock>) -> (Self, impl Future<Output = ()>) {
        let (queue, waiting) = mpsc::channel(MOST_WAITING);
        (Self { queue }, send(clients, clock, waiting))
    }

    /// Tells something about an object, if there is room.
    pub(crate) fn tell(&self, about: ObjectReference, notice: Notice) {
        if self.queue.try_send((about, notice)).is_err() {
            tracing::debug!("an Event was dropped: too many are waiting");
        }
    }
}

async fn send(clients: Clients, clock: Arc<dyn Clock>, mut waiting: mpsc::Receiver<(ObjectReference, Notice)>) {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while let Some((about, notice)) = waiting.recv().await {
        pace.tick().await;
        let namespace = about.namespace.clone().unwrap_or_default();
        let api: Api<Event> = Api::namespaced(clients.requests.clone(), &namespace);
        let event = event(about, notice, clock.now());
        if let Err(error) = call(ANSWER_WITHIN, api.create(&PostParams::default(), &event)).await {
            tracing::debug!(error = error.chain(), "an Event was not accepted");
        }
    }
}

/// A registration, as what an Event is about.
pub(crate) fn about(registration: &AppRegistration) -> ObjectReference {
    let meta = &registration.metadata;
    ObjectReference {
        api_version: Some(AppRegistration::api_version(&()).into_owned()),
        kind: Some(AppRegistration::kind(&()).into_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        ..ObjectReference::default()
    }
}

fn event(about: ObjectReference, notice: Notice, now: jiff::Timestamp) -> Event {
    let mut note = notice.note;
    while note.len() > LONGEST_NOTE_BYTES {
        note.pop();
    }
    // A generateName that ends with a dot is refused.
    Event {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", about.name.as_deref().unwrap_or("appreg"))),
            namespace: about.namespace.clone(),
            ..ObjectMeta::default()
        },
        action: Some(notice.action.to_owned()),
        event_time: Some(MicroTime(now)),
        note: Some(note),
        reason: Some(notice.reason.as_str().to_owned()),
        regarding: Some(about),
        reporting_controller: Some("appreg.dev/controller".to_owned()),
        reporting_instance: Some("appreg-controller".to_owned()),
        type_: Some(
            match notice.severity {
                Severity::Normal => "Normal",
                Severity::Warning => "Warning",
            }
            .to_owned(),
        ),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Reason;

    #[test]
    fn the_name_that_the_api_server_is_to_complete_does_not_end_in_a_dot() {
        let notice =
            Notice { severity: Severity::Normal, reason: Reason::Adopted, action: "Register", note: String::new() };
        let mut registration = AppRegistration::new("storefront", crate::api::AppRegistrationSpec::default());
        registration.metadata.namespace = Some("shop".to_owned());
        let event = event(about(&registration), notice, jiff::Timestamp::UNIX_EPOCH);
        // Validation forgives a trailing dash of a generateName, and nothing else.
        assert_eq!(event.metadata.generate_name.as_deref(), Some("storefront-"));
    }
}

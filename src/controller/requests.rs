//! The writes as requests: POST what must not exist, PUT over exactly what was read, and metadata alone as the answer.

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use kube::api::{PostParams, Request};
use kube::core::PartialObjectMeta;
use kube::{Api, Resource as _};
use serde::Serialize;
use tokio::time::sleep;

use crate::api::{ConditionType, Reason};
use crate::kubernetes::client::{ANSWER_WITHIN, Error, WRITTEN_WITHIN, call};
use crate::kubernetes::{ObjectName, version_of};

use super::Context;
use super::objects::FIELD_MANAGER;

/// The longest message of a condition, in characters. The API allows 32768.
const LONGEST_MESSAGE: usize = 1024;

/// Creates or replaces a Secret; the answer is its metadata alone, so that no value travels back.
///
/// Where the outcome is unknown, the Secret is read back: what it holds tells whether the write was committed, while the
/// plaintext is still there to go on from.
pub(crate) async fn write(
    ctx: &Context,
    object: &ObjectName,
    secret: &Secret,
) -> Result<PartialObjectMeta<Secret>, Error> {
    let url = Secret::url_path(&(), Some(&object.namespace));
    let body = serde_json::to_vec(secret).map_err(|_| Error::Unreadable)?;
    let name = secret.metadata.resource_version.is_some().then_some(&*object.name);
    match send(ctx, url, (name, None), &params(), body).await {
        Err(error) if error.unknown_outcome() => committed(ctx, object, secret).await.ok_or(error),
        answer => answer,
    }
}

/// The metadata of a Secret that holds exactly what was to be written.
async fn committed(ctx: &Context, object: &ObjectName, secret: &Secret) -> Option<PartialObjectMeta<Secret>> {
    let api: Api<Secret> = Api::namespaced(ctx.clients.requests.clone(), &object.namespace);
    let live = call(ANSWER_WITHIN, api.get(&object.name)).await.ok()?;
    let is_ours = live.data == secret.data
        && live.metadata.annotations == secret.metadata.annotations
        && live.metadata.resource_version != secret.metadata.resource_version;
    is_ours.then(|| PartialObjectMeta { metadata: live.metadata, ..PartialObjectMeta::default() })
}

/// Asks whether a Secret would be created or replaced, without doing it.
pub(crate) async fn rehearse(
    ctx: &Context,
    object: &ObjectName,
    secret: &Secret,
) -> Result<PartialObjectMeta<Secret>, Error> {
    let url = Secret::url_path(&(), Some(&object.namespace));
    let body = serde_json::to_vec(secret).map_err(|_| Error::Unreadable)?;
    let name = secret.metadata.resource_version.is_some().then_some(&*object.name);
    let params = PostParams { dry_run: true, ..params() };
    send(ctx, url, (name, None), &params, body).await
}

/// A status as it is sent: who it is about, the resourceVersion that it was made from, and the status alone.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusBody<'a, S> {
    api_version: Cow<'static, str>,
    kind: Cow<'static, str>,
    metadata: ObjectMeta,
    status: &'a S,
}

/// Replaces the status of an object, and returns its new resourceVersion; `None` if it was stale or the object is gone:
/// the watch brings what is newer.
pub(crate) async fn write_status<K, S>(
    ctx: &Context,
    object: &ObjectName,
    resource_version: &str,
    status: &S,
) -> Result<Option<u64>, Error>
where
    K: kube::Resource<DynamicType = ()> + serde::de::DeserializeOwned,
    S: Serialize,
{
    let namespace = Some(&*object.namespace).filter(|namespace| !namespace.is_empty());
    let metadata = ObjectMeta {
        name: Some(object.name.to_string()),
        namespace: namespace.map(str::to_owned),
        resource_version: Some(resource_version.to_owned()),
        ..ObjectMeta::default()
    };
    let body = StatusBody { api_version: K::api_version(&()), kind: K::kind(&()), metadata, status };
    let body = serde_json::to_vec(&body).map_err(|_| Error::Unreadable)?;
    let url = K::url_path(&(), namespace);
    match send::<K>(ctx, url, (Some(&object.name), Some("status")), &params(), body).await {
        Ok(written) => Ok(Some(version_of(&written))),
        Err(error) if error.conflict() || error.is_absent(&object.name) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The condition `Ready` of an object that is in force or is not; its time moves when it flips.
pub(crate) fn ready(
    before: &[Condition],
    (reason, message): (Reason, &str),
    generation: i64,
    now: Timestamp,
) -> Condition {
    let status = if reason == Reason::InForce { "True" } else { "False" };
    let before = before.iter().find(|c| c.type_ == ConditionType::Ready.as_str() && c.status == status);
    Condition {
        type_: ConditionType::Ready.as_str().to_owned(),
        status: status.to_owned(),
        reason: reason.as_str().to_owned(),
        message: message.chars().take(LONGEST_MESSAGE).collect(),
        observed_generation: Some(generation),
        last_transition_time: before.map_or(Time(now), |c| c.last_transition_time.clone()),
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

async fn send<K: serde::de::DeserializeOwned>(
    ctx: &Context,
    url: String,
    (name, subresource): (Option<&str>, Option<&str>),
    params: &PostParams,
    body: Vec<u8>,
) -> Result<PartialObjectMeta<K>, Error>
where
    PartialObjectMeta<K>: serde::de::DeserializeOwned,
{
    let request = Request::new(url);
    let built = match (name, subresource) {
        (Some(name), Some(subresource)) => request.replace_subresource(subresource, name, params, body),
        (Some(name), None) => request.replace(name, params, body),
        (None, _) => request.create(params, body),
    };
    let mut request = built.map_err(|_| Error::Unreadable)?;
    request.headers_mut().insert(
        http::header::ACCEPT,
        http::HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"),
    );
    let written = call(WRITTEN_WITHIN, ctx.clients.writes.request(request));
    tokio::pin!(written);
    tokio::select! {
        written = &mut written => written,
        () = sleep(ANSWER_WITHIN) => {
            // Nobody else waits for a webhook that takes its time.
            let _slow = SlowWrite::begin(ctx);
            written.await
        }
    }
}

/// A write that takes longer than an ordinary request: its pass does not count as running.
struct SlowWrite<'a>(&'a Context);

impl<'a> SlowWrite<'a> {
    fn begin(ctx: &'a Context) -> Self {
        ctx.slow_writes.fetch_add(1, Ordering::Relaxed);
        ctx.work.notify_one();
        Self(ctx)
    }
}

impl Drop for SlowWrite<'_> {
    fn drop(&mut self) {
        self.0.slow_writes.fetch_sub(1, Ordering::Relaxed);
    }
}

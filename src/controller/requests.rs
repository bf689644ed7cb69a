//! The writes as requests: POST what must not exist, PUT over exactly what was read, and metadata alone as the answer.

use k8s_openapi::api::core::v1::Secret;
use kube::Resource as _;
use kube::api::{PostParams, Request};
use kube::core::PartialObjectMeta;
use serde::Serialize;

use crate::kubernetes::ObjectName;
use crate::kubernetes::client::{ANSWER_WITHIN, Error, call};

use super::Context;
use super::objects::FIELD_MANAGER;

/// Creates or replaces a Secret; the answer is its metadata alone, so that no value travels back.
pub(crate) async fn write(
    ctx: &Context,
    object: &ObjectName,
    secret: &Secret,
) -> Result<PartialObjectMeta<Secret>, Error> {
    let url = Secret::url_path(&(), Some(&object.namespace));
    let body = serde_json::to_vec(secret).map_err(|_| Error::Unreadable)?;
    let name = secret.metadata.resource_version.is_some().then_some(&*object.name);
    send(ctx, url, name, None, body).await
}

/// Replaces the status of an object; the answer is its metadata alone.
pub(crate) async fn write_status<K, S>(
    ctx: &Context,
    object: &ObjectName,
    body: &S,
) -> Result<PartialObjectMeta<K>, Error>
where
    K: kube::Resource<DynamicType = ()> + serde::de::DeserializeOwned,
    S: Serialize,
{
    let namespace = Some(&*object.namespace).filter(|namespace| !namespace.is_empty());
    let url = K::url_path(&(), namespace);
    let body = serde_json::to_vec(body).map_err(|_| Error::Unreadable)?;
    send(ctx, url, Some(&object.name), Some("status"), body).await
}

async fn send<K: serde::de::DeserializeOwned>(
    ctx: &Context,
    url: String,
    name: Option<&str>,
    subresource: Option<&str>,
    body: Vec<u8>,
) -> Result<PartialObjectMeta<K>, Error>
where
    PartialObjectMeta<K>: serde::de::DeserializeOwned,
{
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let request = Request::new(url);
    let built = match (name, subresource) {
        (Some(name), Some(subresource)) => request.replace_subresource(subresource, name, &params, body),
        (Some(name), None) => request.replace(name, &params, body),
        (None, _) => request.create(&params, body),
    };
    let mut request = built.map_err(|_| Error::Unreadable)?;
    request.headers_mut().insert(
        http::header::ACCEPT,
        http::HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"),
    );
    call(ANSWER_WITHIN, ctx.clients.requests.request(request)).await
}

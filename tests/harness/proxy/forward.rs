//! Connections, requests and bodies on their way through the proxy.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Mutex as AsyncMutex,
};

use super::{
    request::{Fault, Request, Side},
    state::{Broken, Shared, lock},
};

type Body = UnsyncBoxBody<Bytes, Broken>;
type Upstream = hyper::client::conn::http1::SendRequest<Full<Bytes>>;

pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new(); // ends them when the proxy is dropped
    loop {
        tokio::select! {
            Ok((connection, _)) = listener.accept() => {
                connections.spawn(serve(connection, shared.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection of the program, and one to the API server for it, made when it is first needed.
struct Link {
    epoch: usize,
    upstream: AsyncMutex<Option<Upstream>>,
    shared: Arc<Shared>,
}

async fn serve(connection: TcpStream, shared: Arc<Shared>) {
    let _ = connection.set_nodelay(true);
    let epoch = lock(&shared.state).epoch;
    let link = Arc::new(Link { epoch, upstream: AsyncMutex::default(), shared });
    let service = hyper::service::service_fn(move |request| answer(request, link.clone()));
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(connection), service).await; // an error is a connection that ended, ours to break or theirs to close
}

async fn answer(incoming: http::Request<Incoming>, link: Arc<Link>) -> Result<http::Response<Body>, Broken> {
    let shared = &link.shared;
    let (parts, body) = incoming.into_parts();
    let body = body.collect().await?.to_bytes();
    shared.pass(link.epoch).await?;
    let (mut request, rule) = shared.arrived(&parts);
    let fault = rule.as_ref().map(|rule| rule.rule.fault);
    let hit = |request: &Request| {
        if let Some(rule) = &rule {
            lock(&rule.hit).push(request.clone());
        }
    };

    match fault {
        Some(Fault::Drop(Side::BeforeRequest)) => {
            hit(&request);
            return Err(Broken("dropped".to_owned()));
        }
        Some(Fault::Freeze(Side::BeforeRequest)) => return Err(shared.cut(|| hit(&request)).await),
        Some(Fault::Answer(Side::BeforeRequest, code)) => {
            shared.update(&mut request, |request| request.status = Some(code));
            hit(&request);
            return Ok(status(code));
        }
        Some(Fault::Delay(delay)) => {
            hit(&request);
            tokio::time::sleep(delay).await;
        }
        Some(_) | None => {}
    }

    // In a task of its own: once it is on its way it is done, even where the program is killed meanwhile.
    let forwarding = {
        let outgoing = http::Request::from_parts(parts, Full::new(body));
        let link = link.clone();
        tokio::spawn(async move { forward(outgoing, &link).await })
    };
    let response = tokio::select! {
        response = forwarding => response.map_err(|error| Broken(error.to_string()))??,
        () = shared.until_reset(&request) => return Err(Broken("reset".to_owned())),
    };
    shared.update(&mut request, |request| request.committed = true);

    match fault {
        Some(Fault::Drop(Side::AfterCommitBeforeReply)) => {
            hit(&request);
            Err(Broken("dropped".to_owned()))
        }
        Some(Fault::Freeze(Side::AfterCommitBeforeReply)) => Err(shared.cut(|| hit(&request)).await),
        Some(Fault::Answer(Side::AfterCommitBeforeReply, code)) => {
            shared.update(&mut request, |request| request.status = Some(code));
            hit(&request);
            Ok(status(code))
        }
        Some(_) | None => {
            shared.pass(link.epoch).await?;
            shared.update(&mut request, |request| {
                request.status = Some(response.status().as_u16());
            });
            Ok(response.map(|body| stream(body, request, shared.clone())))
        }
    }
}

async fn forward(request: http::Request<Full<Bytes>>, link: &Link) -> Result<http::Response<Incoming>, Broken> {
    let mut upstream = link.upstream.lock().await;
    if upstream.as_mut().is_none_or(|sender| sender.is_closed()) {
        *upstream = Some(connect(&link.shared).await.map_err(|error| Broken(format!("{error:#}")))?);
    }
    let sender = upstream.as_mut().expect("it was just made");
    sender.ready().await?;
    Ok(sender.send_request(request).await?)
}

async fn connect(shared: &Shared) -> anyhow::Result<Upstream> {
    let connection = TcpStream::connect(shared.target).await?;
    connection.set_nodelay(true)?;
    let name = ServerName::IpAddress(shared.target.ip().into());
    let connection = shared.tls.connect(name, connection).await?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(connection)).await?;
    tokio::spawn(connection); // ends with the sender, or with the API server
    Ok(sender)
}

/// The body frame by frame, each when it may pass.
fn stream(body: Incoming, request: Request, shared: Arc<Shared>) -> Body {
    let frames = futures::stream::unfold(Some(body), move |body| {
        let (request, shared) = (request.clone(), shared.clone());
        async move {
            let mut body = body?;
            let frame = tokio::select! {
                frame = body.frame() => frame?,
                () = shared.until_reset(&request) => return Some((Err(Broken("reset".to_owned())), None)),
            };
            if let Err(broken) = shared.pass_frame(&request).await {
                return Some((Err(broken), None));
            }
            match frame {
                Ok(frame) => Some((Ok(frame), Some(body))),
                Err(error) => Some((Err(Broken::from(error)), None)),
            }
        }
    });
    StreamBody::new(frames.boxed()).boxed_unsync()
}

/// What an API server says where it refuses a request.
fn status(code: u16) -> http::Response<Body> {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        422 => "Invalid",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    };
    let body = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("{reason}, says the tests' proxy"), "reason": reason, "code": code,
    });
    let body = Full::new(Bytes::from(body.to_string())).map_err(|never: Infallible| match never {});
    http::Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(body.boxed_unsync())
        .expect("a valid response")
}

//! HTTP/2 frames that no honest client sends (RFC 9113): written by hand, answered within bounds.

use std::time::Duration;

use appreg::token_service::server::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::connections::{head, read_some};
use super::{CLIENT_SECRET, PATIENCE, StoppedTime, TokenService, is_open};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types (RFC 9113 §6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Error codes (RFC 9113 §7).
const ENHANCE_YOUR_CALM: u32 = 11;

/// The header of `POST https://a/token` with a form, the same way.
const POST_TOKEN: &[u8] = b"\x83\x87\x44\x06/token\x41\x01a\x5f\x21application/x-www-form-urlencoded";

/// `GET https://a/jwks` in HPACK: indexed where the static table has it, else literal (RFC 7541 §6).
const GET_JWKS: &[u8] = b"\x82\x87\x44\x05/jwks\x41\x01a";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        pairs.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame(SETTINGS, 0, 0, &payload)
}

async fn begun(service: &TokenService, pairs: &[(u16, u32)]) -> TlsStream<TcpStream> {
    let mut stream = service.connect("h2").await;
    stream.write_all(&[PREFACE, &settings(pairs)].concat()).await.unwrap();
    stream
}

/// The next frame: type, flags, payload. `None` once the connection has ended.
async fn next_frame(stream: &mut TlsStream<TcpStream>) -> Option<(u8, u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut payload).await.ok()?;
    Some((head[3], head[4], payload))
}

/// Reads until the connection ends: the error code of the last GOAWAY.
async fn end_of(stream: &mut TlsStream<TcpStream>) -> Option<u32> {
    let mut code = None;
    while let Some((kind, _, payload)) = timeout(PATIENCE, next_frame(stream)).await.expect("it ends") {
        if kind == GOAWAY {
            code = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
    }
    code
}

#[tokio::test]
async fn who_does_not_begin_or_stops_in_the_middle_of_a_header_or_answers_no_ping_loses_the_connection() {
    let (Limits { header, .. }, second) = (Limits::default(), Duration::from_secs(1));
    let service = TokenService::start().await;
    let time = StoppedTime::new();
    let mut silent = service.connect("h2").await;
    let mut half_a_preface = service.connect("h2").await;
    half_a_preface.write_all(&PREFACE[..10]).await.unwrap();
    let mut only_settings = begun(&service, &[]).await;
    let mut half_a_header = begun(&service, &[]).await;
    half_a_header.write_all(&frame(HEADERS, END_STREAM, 1, GET_JWKS)).await.unwrap();
    // Each request that is served shows that the service has seen what came before it.
    service.is_served().await;

    time.comes(header.saturating_sub(second)).await;
    service.is_served().await;
    for stream in [&mut silent, &mut half_a_preface] {
        assert!(is_open(stream).await);
    }
    time.comes(header + second).await;
    for stream in [&mut silent, &mut half_a_preface] {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    assert_eq!(time.start.elapsed(), header + second, "without a preface");

    // An interval until the ping, which has just been sent, and as much for its answer.
    service.is_served().await;
    time.comes(2 * (header + second)).await;
    for stream in [&mut only_settings, &mut half_a_header] {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    assert_eq!(time.start.elapsed(), 2 * (header + second), "without an answer");
}

#[tokio::test]
async fn a_rapid_reset_ends_the_connection() {
    let service = TokenService::start().await;
    let mut stream = begun(&service, &[]).await;
    let mut flood = Vec::new();
    for stream_id in (1_u32..4000).step_by(2) {
        flood.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream_id, GET_JWKS));
        flood.extend(frame(RST_STREAM, 0, stream_id, &8_u32.to_be_bytes()));
    }
    // The server may have hung up before it is all written.
    let _ = stream.write_all(&flood).await;
    assert_eq!(end_of(&mut stream).await, Some(ENHANCE_YOUR_CALM), "CVE-2023-44487");
    service.is_served().await;
}

#[tokio::test]
async fn a_flood_of_continuation_frames_ends_the_connection() {
    let service = TokenService::start().await;
    for payload in [&b""[..], b"\x00\x01x\x01y", &[b"\x00\x01x\x7f\x81\x3f".as_slice(), &[b'y'; 8000]].concat()] {
        let mut stream = begun(&service, &[]).await;
        stream.write_all(&frame(HEADERS, END_STREAM, 1, GET_JWKS)).await.unwrap();
        let more = frame(CONTINUATION, 0, 1, payload);
        let mut written = 0;
        while written < 16 << 20 && stream.write_all(&more).await.is_ok() {
            written += more.len();
        }
        assert!(written < 16 << 20, "CVE-2024-27316: still open after {written} bytes of {}", payload.len());
        service.is_served().await;
    }
}

#[tokio::test]
async fn streams_that_break_the_protocol_end_the_connection_after_so_many() {
    let service = TokenService::start().await;
    let mut stream = begun(&service, &[]).await;
    let mut flood = Vec::new();
    for stream_id in (1_u32..4000).step_by(2) {
        // A stream that depends on itself is an error of the stream (RFC 7540 §5.3.1).
        let dependency = [&stream_id.to_be_bytes()[..], &[0], GET_JWKS].concat();
        flood.extend(frame(HEADERS, END_STREAM | END_HEADERS | 0x20, stream_id, &dependency));
    }
    let _ = stream.write_all(&flood).await;
    assert_eq!(end_of(&mut stream).await, Some(ENHANCE_YOUR_CALM), "RUSTSEC-2024-0003");
    service.is_served().await;
}

#[tokio::test]
async fn more_streams_than_allowed_are_refused_and_the_connection_goes_on() {
    let service = TokenService::start().await;
    let mut stream = begun(&service, &[]).await;
    let mut most = None;
    while most.is_none() {
        let (kind, flags, payload) = timeout(PATIENCE, next_frame(&mut stream)).await.unwrap().unwrap();
        if kind == SETTINGS && flags & ACK == 0 {
            most = payload.chunks(6).find(|pair| pair[..2] == [0, 3]).map(|pair| pair[5]);
        }
    }
    assert_eq!(most, Some(100), "SETTINGS_MAX_CONCURRENT_STREAMS");
}

#[tokio::test]
async fn bodies_that_never_end_take_a_bounded_room_and_keep_nobody_from_theirs() {
    const CONNECTIONS: usize = 8;
    let service = TokenService::start().await;
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = begun(&service, &[]).await;
        for stream_id in (1..=63).step_by(2) {
            stream.write_all(&frame(HEADERS, END_HEADERS, stream_id, POST_TOKEN)).await.unwrap();
            stream.write_all(&frame(DATA, 0, stream_id, &[b'a'; 1000])).await.unwrap();
        }
        streams.push(stream);
    }
    // Of 256 an address may have 64.
    service.until("the oldest gave way", async || service.ended("overloaded").await == 192).await;
    for host in [1, 2] {
        let mut honest = service.try_connect_from(host, "http/1.1").await.unwrap();
        let body = format!("grant_type=client_credentials&client_id=shop.storefront&client_secret={CLIENT_SECRET}");
        honest.write_all(format!("{}{}", head(body.len()), &body[..20]).as_bytes()).await.unwrap();
        // What is served after it shows that it is awaited.
        service.is_served().await;
        honest.write_all(&body.as_bytes()[20..]).await.unwrap();
        let answer = read_some(&mut honest).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "127.0.0.{host}: {answer}");
    }
    assert_eq!(service.ended("overloaded").await, 193, "at its own address one more gave way");
    drop(streams);
}

#[tokio::test]
async fn a_flood_of_pings_and_settings_of_one_who_does_not_read_ends_at_the_deadline() {
    // No other deadline is near.
    let limits = Limits { write: Duration::from_millis(300), header: Duration::from_hours(1), ..Limits::default() };
    let service = TokenService::start_with("", limits).await;
    for flood in [frame(PING, 0, 0, &[7; 8]), settings(&[(3, 1)])] {
        let mut deaf = begun(&service, &[]).await;
        let (flood, mut written) = (flood.repeat(1000), 0);
        while deaf.write_all(&flood).await.is_ok() {
            written += flood.len();
            assert!(written < 64 << 20, "what the sockets hold and no more: {written} bytes");
        }
        service.is_served().await;
    }
}

#[tokio::test]
async fn who_opens_no_window_for_its_answers_loses_the_connection_at_a_deadline() {
    // No other deadline is near.
    let limits = Limits { write: Duration::from_millis(300), header: Duration::from_hours(1), ..Limits::default() };
    let service = TokenService::start_with("", limits).await;
    // SETTINGS_INITIAL_WINDOW_SIZE 0: the header of each answer comes, its body never may.
    let mut stream = begun(&service, &[(4, 0)]).await;
    for stream_id in (1..64).step_by(2) {
        stream.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, stream_id, GET_JWKS)).await.unwrap();
    }
    let (mut answers, mut bodies) = (0, 0);
    while let Some((kind, _, payload)) = timeout(PATIENCE, next_frame(&mut stream)).await.unwrap() {
        match kind {
            HEADERS => answers += 1,
            DATA => bodies += payload.len(),
            _ => {}
        }
    }
    assert!(answers > 0 && bodies == 0, "{answers} headers, {bodies} bytes of bodies");
    let metrics = service.metrics().await;
    assert!(metrics.contains(r#"connections_refused_total{reason="answer_timeout"} 1"#), "{metrics}");
    service.is_served().await;
}

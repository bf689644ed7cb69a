//! More requests than one thread can answer: some are answered, the others are told at once to come again.

use appreg::token_service::queue::Depths;
use appreg::token_service::server::Limits;
use futures::future::join_all;
use http::StatusCode;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use super::connections::{head, read_some};
use super::{Answer, CLIENT_SECRET, PATIENCE, TokenService, answer_of};

const ID: &str = "shop.storefront";

async fn start(queue: Depths) -> TokenService {
    TokenService::start_with("", Limits { queue, ..Limits::default() }).await
}

fn is_sent_away(answer: &Answer) -> bool {
    if answer.status == StatusCode::OK {
        return false;
    }
    assert_eq!(answer.error(), (503, "temporarily_unavailable".into()));
    assert_eq!(answer.header("retry-after"), Some("1"), "RFC 9110 §10.2.3");
    assert_eq!((answer.header("cache-control"), answer.header("pragma")), (Some("no-store"), Some("no-cache")));
    true
}

#[tokio::test]
async fn whoever_finds_the_queue_full_is_told_when_to_come_again_and_documents_are_served_all_the_same() {
    let service = start(Depths { standing: 0, burst: 0 }).await;
    for _ in 0..3 {
        assert!(is_sent_away(&service.token(ID, CLIENT_SECRET).await));
        // Whether the client secret is right is not even looked at.
        assert!(is_sent_away(&service.token(ID, "wrong").await));
    }
    assert_eq!(service.send(service.http().get(service.url("/jwks"))).await.status, StatusCode::OK);
    let counted = r#"appreg_token_service_requests_total{endpoint="token",outcome="overloaded"} 6"#;
    assert!(service.metrics().await.contains(counted), "{}", service.metrics().await);
}

#[tokio::test]
async fn of_many_requests_at_once_those_that_fit_get_tokens_and_all_others_are_told_to_come_again() {
    // The test and the service share one thread: what is sent before the test waits arrives together.
    let service = start(Depths { standing: 2, burst: 4 }).await;
    let http = service.http();
    let token = || {
        let form = [("grant_type", "client_credentials"), ("client_id", ID), ("client_secret", CLIENT_SECRET)];
        http.post(service.url("/token")).form(&form).send()
    };
    answer_of(token().await.unwrap()).await; // opens the one connection of HTTP/2 that carries all the others
    let (mut served, mut sent_away) = (1, 0);
    let all_at_once = async {
        // The transport may tear a flight apart; one that arrives whole has to be seen once.
        while sent_away == 0 {
            for response in join_all((0..32).map(|_| token())).await {
                let refused = is_sent_away(&answer_of(response.unwrap()).await);
                *(if refused { &mut sent_away } else { &mut served }) += 1;
            }
        }
    };
    timeout(PATIENCE, all_at_once).await.unwrap();
    assert!(served > 1, "{served} served, {sent_away} sent away");
    let metrics = service.metrics().await;
    for (outcome, count) in [("ok", served), ("overloaded", sent_away)] {
        let counted = format!(r#"appreg_token_service_requests_total{{endpoint="token",outcome="{outcome}"}} {count}"#);
        assert!(metrics.contains(&counted), "{counted} in\n{metrics}");
    }
}

#[tokio::test]
async fn who_is_sent_away_keeps_the_connection_also_when_the_body_comes_after_its_header() {
    let service = start(Depths { standing: 0, burst: 0 }).await;
    let mut stream = service.connect("http/1.1").await;
    for is_late in [false, true, true, false] {
        let body = "x".repeat(100);
        stream.write_all(head(body.len()).as_bytes()).await.unwrap();
        if is_late {
            // One thread: when another request has been answered, this one has been looked at.
            assert!(is_sent_away(&service.token(ID, CLIENT_SECRET).await));
        }
        stream.write_all(body.as_bytes()).await.unwrap();
        let answer = read_some(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1"), "{answer}");
        assert!(!answer.contains("connection: close"), "{answer}");
    }
}

#[tokio::test]
async fn whoever_was_waited_for_takes_its_turn_again() {
    let service = start(Depths { standing: 4, burst: 4 }).await;
    let sent_away = async || {
        let mut streams = Vec::new();
        for _ in 0..32 {
            let mut stream = service.connect("http/1.1").await;
            stream.write_all(format!("{}grant_type=", head(100)).as_bytes()).await.unwrap();
            streams.push(stream);
        }
        // Their headers came one by one; what is left of them comes together.
        for stream in &mut streams {
            stream.write_all("x".repeat(89).as_bytes()).await.unwrap();
        }
        let mut sent_away = 0;
        for stream in &mut streams {
            sent_away += usize::from(read_some(stream).await.starts_with("HTTP/1.1 503"));
        }
        sent_away
    };
    // As above: one flight that arrives whole has to be seen.
    let seen = async { while sent_away().await == 0 {} };
    timeout(PATIENCE, seen).await.unwrap();
}

#[tokio::test]
async fn a_body_that_is_on_its_way_takes_no_place_from_others() {
    let service = start(Depths { standing: 1, burst: 1 }).await;
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut stream = service.connect("http/1.1").await;
        let head = "POST /token HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-www-form-urlencoded\r\n\
                    content-length: 100\r\n\r\ngrant_type=";
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    for _ in 0..4 {
        let answer = timeout(PATIENCE, service.token(ID, CLIENT_SECRET)).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
    }
    drop(slow);
}

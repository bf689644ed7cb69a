//! `POST /revoke`, case by case against RFC 7009.

use appreg::shared_lists::{NAMES, index_of_client};
use http::{StatusCode, header};
use jiff::SignedDuration;

use super::introspection::{Stage, signed_with};
use super::{Answer, CLIENT_SECRET, Entry, NAMESPACE, signing_key_since_yesterday};
use crate::fake_api::{Fault, Nth};

const ID: &str = "shop.storefront";
const FORM: &str = "application/x-www-form-urlencoded";

impl Stage {
    async fn revoke(&self, token: &str) -> Answer {
        self.service.post("/revoke", ID, &[("token", token)]).await
    }

    async fn revoked(&self, token: &str) {
        let answer = self.revoke(token).await;
        assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, ""), "RFC 7009 §2.2: {answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("content-type"), None);
    }

    /// The writes of lists since the last call.
    fn writes(&self) -> Vec<String> {
        self.service.api.take_requests().into_iter().filter(|request| request.starts_with("update ")).collect()
    }
}

fn list() -> String {
    format!("{NAMESPACE}/{}", NAMES[index_of_client(ID)])
}

#[tokio::test]
async fn a_token_of_ones_own_is_revoked_for_good_by_one_write() {
    let stage = Stage::start().await;
    let (token, other) = (stage.token().await, stage.token().await);
    assert!(stage.is_active(&token).await && stage.is_active(&other).await);
    stage.writes();
    stage.revoked(&token).await;
    assert_eq!(stage.writes(), [format!("update secrets {} 200", list())]);
    assert!(!stage.is_active(&token).await);
    assert!(stage.is_active(&other).await, "RFC 7009 §2.1: this token alone");
    stage.revoked(&token).await;
    assert_eq!(stage.writes(), [""; 0], "what is written is not written again");
    assert_eq!(stage.service.token(ID, CLIENT_SECRET).await.status, StatusCode::OK, "the client goes on");
}

#[tokio::test]
async fn what_is_no_valid_token_needs_no_revocation_and_is_answered_with_200_as_rfc_7009_2_2_says() {
    let stage = Stage::start().await;
    let token = stage.token().await;
    let expired = stage.signed(|claims| claims.expires_at = claims.issued_at - SignedDuration::from_secs(1));
    let removed = stage.signed(|claims| claims.entry = Some("removed"));
    let unpublished = signed_with(&signing_key_since_yesterday(), &stage.service.issuer, |_| {});
    let issuer = stage.signed(|claims| claims.issuer = "https://evil.example");
    let foreign_and_expired = stage.signed(|claims| {
        claims.client_id = "shop.api";
        claims.expires_at = claims.issued_at;
    });
    stage.writes();
    for token in ["45ghiukldjahdnhzdauz", "a.b.c", &expired, &removed, &unpublished, &issuer, &foreign_and_expired] {
        stage.revoked(token).await;
    }
    stage.revoked(&format!("{token}x")).await;
    assert_eq!(stage.writes(), [""; 0]);
    assert!(stage.is_active(&token).await);
}

#[tokio::test]
async fn requests_that_are_not_understood_or_not_allowed_are_refused_as_rfc_7009_says() {
    let stage = Stage::start().await;
    let service = &stage.service;
    let token = stage.token().await;
    let url = service.url("/revoke");
    let form = |body: String| service.http().post(&url).header(header::CONTENT_TYPE, FORM).body(body);
    let of = |client: &str, body: String| form(body).basic_auth(client, Some(CLIENT_SECRET));
    for (case, request, expected) in [
        ("§2.1: not authenticated", form(format!("token={token}")), (401, "invalid_client")),
        ("§2.1: wrong", form(format!("token={token}")).basic_auth(ID, Some("x")), (401, "invalid_client")),
        ("§2.1: another client's token", of("shop.api", format!("token={token}")), (400, "invalid_grant")),
        ("§2.1: token is REQUIRED", of(ID, "token_type_hint=access_token".into()), (400, "invalid_request")),
        ("RFC 6749 §3.1: nor twice", of(ID, format!("token={token}&token={token}")), (400, "invalid_request")),
        (
            "§2.1: a form",
            service.http().post(&url).basic_auth(ID, Some(CLIENT_SECRET)).body("token=x"),
            (400, "invalid_request"),
        ),
        ("§2: not in the query", service.http().post(format!("{url}?client_id={ID}")), (400, "invalid_request")),
    ] {
        let answer = service.send(request).await;
        assert_eq!(answer.error(), (expected.0, expected.1.to_owned()), "{case}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{case}");
    }
    assert!(stage.is_active(&token).await, "nothing was revoked");
    let answer = service.send(service.http().get(format!("{url}?token={token}&callback=x"))).await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, Some("POST")), "§2.3 (JSONP) is not offered");
    for hint in ["access_token", "refresh_token", "urn:example:unknown", ""] {
        let token = stage.token().await;
        let answer = service.post("/revoke", ID, &[("token", &token), ("token_type_hint", hint)]).await;
        assert_eq!(answer.status, StatusCode::OK, "§2.1: the hint {hint:?} is but a hint");
        assert!(!stage.is_active(&token).await, "{hint:?}");
    }
}

#[tokio::test]
async fn an_api_server_that_refuses_or_does_not_answer_is_told_by_503_and_the_token_is_refused_here_all_the_same() {
    let stage = Stage::start().await;
    for fault in [Fault::forbidden(), Fault::internal(), Fault::LoseRequest, Fault::Hang] {
        let (token, what) = (stage.token().await, format!("{fault:?}"));
        stage.service.api.on(Nth::every("update", "secrets"), fault);
        let answer = stage.revoke(&token).await;
        assert_eq!(answer.error(), (503, "temporarily_unavailable".into()), "RFC 7009 §2.2.1, {what}");
        assert_eq!(answer.header("retry-after"), Some("5"), "{what}");
        assert!(!stage.is_active(&token).await, "{what}");
        let readyz = stage.service.readyz().await;
        assert_eq!(readyz.status, StatusCode::OK, "tokens are issued all the same");
        assert!(readyz.body.contains("[~] shared-lists: ok, but the Secret revocations-"), "{what}: {readyz:?}");
        stage.service.api.heal();
        stage.revoked(&token).await;
        assert!(stage.service.readyz().await.body.contains("[+] shared-lists"));
    }
    assert!(stage.service.metrics().await.contains("token_service_revoked_tokens_unwritten 0.0"));
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_not_believed_before_it_was_read() {
    let stage = Stage::start().await;
    stage.service.api.hold_watches();
    let token = stage.token().await;
    stage.writes();
    stage.service.api.on(Nth::every("update", "secrets").times(1), Fault::LoseReply);
    assert_eq!(stage.revoke(&token).await.status, StatusCode::SERVICE_UNAVAILABLE);
    stage.revoked(&token).await;
    let list = list();
    assert_eq!(stage.writes(), [format!("update secrets {list} -"), format!("update secrets {list} 409")]);
}

#[tokio::test]
async fn what_could_not_be_written_is_written_without_being_asked_again() {
    let stage = Stage::start().await;
    let token = stage.token().await;
    stage.service.api.on(Nth::every("update", "secrets").times(2), Fault::internal());
    assert_eq!(stage.revoke(&token).await.status, StatusCode::SERVICE_UNAVAILABLE);
    let written = "token_service_revoked_tokens_unwritten 0.0";
    stage.service.until("written", async || stage.service.metrics().await.contains(written)).await;
    let twin = stage.service.twin().await;
    let answer = twin.post("/introspect", "shop.api", &[("token", &token)]).await;
    assert_eq!(answer.json()["active"], false);
}

#[tokio::test]
async fn without_its_list_a_client_cannot_revoke_and_is_told_at_once() {
    let stage = Stage::start().await;
    let token = stage.token().await;
    stage.service.api.person_deletes("secrets", NAMESPACE, NAMES[index_of_client(ID)]);
    let told = format!("there is no Secret {}", NAMES[index_of_client(ID)]);
    stage.service.until("told", async || stage.service.readyz().await.body.contains(&told)).await;
    let answer = stage.revoke(&token).await;
    assert_eq!(answer.error(), (503, "temporarily_unavailable".into()));
    assert!(!stage.is_active(&token).await);
    stage.service.api.person_makes_lists();
    stage.revoked(&token).await;
}

#[tokio::test]
async fn many_revocations_at_once_share_their_writes() {
    let stage = Stage::start().await;
    let mut tokens = Vec::new();
    for _ in 0..40 {
        tokens.push(stage.token().await);
    }
    stage.writes();
    futures::future::join_all(tokens.iter().map(|token| stage.revoked(token))).await;
    let writes = stage.writes().len();
    assert!(writes <= 20, "{writes} writes for 40 revocations");
    for token in &tokens {
        assert!(!stage.is_active(token).await);
    }
}

#[tokio::test]
async fn a_clients_tokens_are_revoked_up_to_a_limit_which_others_do_not_feel() {
    let stage = Stage::start().await;
    let other =
        (0..100).map(|n| format!("shop.other-{n}")).find(|id| index_of_client(id) == index_of_client(ID)).unwrap();
    stage.service.api.person_applies(&Entry::new(&other).secret());
    let http = stage.service.http();
    let url = stage.service.url("/revoke");
    let revoke = |token: String| {
        let request = http.post(&url).basic_auth(ID, Some(CLIENT_SECRET)).form(&[("token", token)]);
        stage.service.send(request)
    };
    for _ in 0..8 {
        let batch = (0..128).map(|_| revoke(stage.signed(|_| {})));
        for answer in futures::future::join_all(batch).await {
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        }
    }
    let answer = revoke(stage.signed(|_| {})).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, Some("60")), "{answer:?}");
    let own = stage.service.token(&other, CLIENT_SECRET).await.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(stage.service.post("/revoke", &other, &[("token", &own)]).await.status, StatusCode::OK);
    stage.service.clock.advance(SignedDuration::from_hours(1));
    let token = stage.token().await;
    stage.revoked(&token).await;
    let metrics = stage.service.metrics().await;
    assert!(metrics.contains("token_service_revoked_tokens 1.0\n"), "what has ended is forgotten: {metrics}");
}

//! Token signing keys as those see them who administer a cluster: another algorithm by `helm upgrade`, and the emergency
//! procedure of docs/keys.md with its own commands.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use appreg::signer::Algorithm;
use jiff::Timestamp;
use jsonwebtoken::jwk::JwkSet;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;

use crate::harness::operator::LEDGER;
use crate::harness::{ControlPlane, Operator, Running, eventually_within};
use crate::registration::{discover, key_set, verified};
use crate::stage::{Application, BINARY, SOON, text};

const ANNOTATION: &str = "appreg.dev/revoke-minted-before";

/// One registration, and what a resource server knows.
struct Shop<'a> {
    plane: &'a ControlPlane,
    secrets: Api<Secret>,
    issuer: String,
    ca: String,
    jwks_uri: String,
}

impl<'a> Shop<'a> {
    async fn open(plane: &'a ControlPlane, issuer: String) -> Self {
        plane.kubectl(&["create", "namespace", "shop"]).await.unwrap().ok().unwrap();
        let registration = "{apiVersion: appreg.dev/v1alpha1, kind: AppRegistration, \
                            metadata: {name: storefront, namespace: shop}, spec: {displayName: Storefront}}";
        plane.kubectl_apply(registration).await.unwrap();
        let wait = ["wait", "-n", "shop", "--for=condition=Ready", "appregistration/storefront", "--timeout=60s"];
        plane.kubectl(&wait).await.unwrap().ok().unwrap();
        let secrets: Api<Secret> = Api::namespaced(plane.client("admin"), "shop");
        let ca = text(&secrets.get("storefront").await.unwrap(), "issuer_ca.crt").unwrap();
        let metadata = discover(&ca, &issuer).await;
        let jwks_uri = metadata["jwks_uri"].as_str().unwrap().to_owned();
        Self { plane, secrets, issuer, ca, jwks_uri }
    }

    async fn keys(&self) -> JwkSet {
        key_set(&self.ca, &self.jwks_uri).await
    }

    async fn delivered(&self) -> String {
        text(&self.secrets.get("storefront-token").await.unwrap(), "access_token").unwrap()
    }

    /// A token from the token endpoint.
    async fn fresh(&self) -> String {
        let application = Application::of(&self.secrets.get("storefront").await.unwrap());
        let answer = application.tokens.basic(&application.client_id, &application.client_secret).await.unwrap();
        answer.access_token.unwrap_or_else(|| panic!("{:?}: {:?}", answer.status, answer.error))
    }

    /// `kubectl annotate`, as docs/keys.md says.
    async fn annotate(&self, time: &str) {
        let annotation = format!("{ANNOTATION}={time}");
        let command = ["annotate", "secret", "signing-keys", "--namespace", LEDGER, "--overwrite", &annotation];
        let documented = command[..command.len() - 1].join(" ");
        assert!(include_str!("../../docs/keys.md").contains(&format!("kubectl {documented}")), "{documented}");
        self.plane.kubectl(&command).await.unwrap().ok().unwrap();
    }
}

fn head(token: &str) -> (String, jsonwebtoken::Algorithm) {
    let head = jsonwebtoken::decode_header(token).unwrap();
    (head.kid.unwrap(), head.alg)
}

fn kids(keys: &JwkSet) -> BTreeSet<String> {
    keys.keys.iter().map(|key| key.common.key_id.clone().unwrap()).collect()
}

async fn page(running: &Running, path: &str) -> Result<String> {
    Ok(reqwest::get(format!("http://{}{path}", running.admin)).await?.text().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaked_signing_key_is_replaced_by_one_annotation_under_each_algorithm() {
    let plane = ControlPlane::start().await.unwrap();
    let mut operator = Operator::install(&plane, BINARY, &[]).await.unwrap();
    let mut controller = operator.controller(&plane).await.unwrap();
    let _token_service = operator.token_service(&plane).await.unwrap();
    let shop = Shop::open(&plane, operator.issuer()).await;

    for algorithm in Algorithm::ALL {
        let name: jsonwebtoken::Algorithm = algorithm.as_str().parse().unwrap();
        let (leaked, signs) = head(&shop.delivered().await);
        if algorithm != Algorithm::default() {
            drop(controller);
            operator.helm("upgrade", &[&format!("authorizationServer.signingAlgorithm={algorithm}")]).await.unwrap();
            controller = operator.controller(&plane).await.unwrap();
            eventually_within(SOON, "the new algorithm's key is published", async || {
                let keys = shop.keys().await;
                let is_there = keys
                    .keys
                    .iter()
                    .any(|key| key.common.key_algorithm.is_some_and(|of_key| of_key.to_string() == algorithm.as_str()));
                ensure!(is_there && kids(&keys).contains(&leaked), "{:?}", kids(&keys));
                Ok(())
            })
            .await;
            assert_eq!(head(&shop.fresh().await), (leaked.clone(), signs), "and does not sign for a day");
        }
        let old = [shop.delivered().await, shop.fresh().await];
        let keys = shop.keys().await;
        for token in &old {
            verified(token, &keys, &shop.issuer);
        }

        // After the second in which the last key was made.
        let time = Timestamp::from_second(Timestamp::now().as_second() + 1).unwrap();
        shop.annotate(&time.to_string()).await;
        let replaced = eventually_within(SOON, "the delivered token is signed again", async || {
            let delivered = shop.delivered().await;
            ensure!(head(&delivered).0 != leaked, "still {leaked}");
            let keys = shop.keys().await;
            ensure!(kids(&keys).len() == 1 && !kids(&keys).contains(&leaked), "{:?}", kids(&keys));
            Ok(delivered)
        })
        .await;
        let keys = shop.keys().await;
        for token in [&replaced, &shop.fresh().await] {
            assert_eq!(head(token).1, name, "the new key is of the algorithm that is configured");
            verified(token, &keys, &shop.issuer);
        }
        for token in &old {
            assert!(keys.find(&head(token).0).is_none(), "no published key verifies it");
        }
        println!("{algorithm}: replaced {:?} after the time", Timestamp::now().duration_since(time));
    }
    let metrics = page(&controller, "/metrics").await.unwrap();
    assert!(metrics.contains("signing_keys_revoked_total 2"), "the one that signed and the one that waited: {metrics}");

    what_does_nothing_is_told(&shop, &controller).await;
}

/// A mistake is told, once, without its text; and so is what is to come.
async fn what_does_nothing_is_told(shop: &Shop<'_>, controller: &Running) {
    shop.annotate("canary-is-no-time").await;
    let line = controller.process.wait_for_line("does nothing", SOON).await.unwrap();
    assert!(line.contains(ANNOTATION) && line.contains("2026-11-22T07:00:00Z"), "{line}");
    eventually_within(SOON, "readyz and a metric tell of it", async || {
        let readyz = page(controller, "/readyz?verbose").await?;
        ensure!(readyz.contains("[~] keys: ok, but the annotation appreg.dev/revoke-minted-before"), "{readyz}");
        let metrics = page(controller, "/metrics").await?;
        ensure!(metrics.contains("signing_keys_revocation_malformed 1"), "{metrics}");
        Ok(())
    })
    .await;
    let before = kids(&shop.keys().await);
    shop.annotate("2199-01-01T00:00:00Z").await;
    controller.process.wait_for_line("will be revoked when it comes", SOON).await.unwrap();
    eventually_within(SOON, "the metric tells of it", async || {
        let metrics = page(controller, "/metrics").await?;
        ensure!(metrics.contains("signing_keys_revocation_pending 1"), "{metrics}");
        ensure!(metrics.contains("signing_keys_revocation_malformed 0"), "{metrics}");
        Ok(())
    })
    .await;
    assert_eq!(kids(&shop.keys().await), before, "neither has done anything");
    let log = controller.process.log();
    assert_eq!(log.matches("does nothing").count(), 1);
    assert!(!log.contains("canary"), "{log}");
}

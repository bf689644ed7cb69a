//! One registration, end to end.

use crate::harness::{ControlPlane, Operator};

const BINARY: &str = env!("CARGO_BIN_EXE_appreg");

#[tokio::test(flavor = "multi_thread")]
async fn a_name_alone_yields_a_client_id_a_client_secret_and_an_access_token_that_foreign_clients_can_use() {
    let plane = ControlPlane::start().await.unwrap();
    let mut operator = Operator::install(&plane, BINARY, &[]).await.unwrap();
    let controller = operator.controller(&plane).await.unwrap();
    let token_service = operator.token_service(&plane).await.unwrap();
    plane.kubectl(&["create", "namespace", "shop"]).await.unwrap().ok().unwrap();
    plane
        .kubectl_apply("{apiVersion: appreg.dev/v1alpha1, kind: AppRegistration, metadata: {name: storefront, namespace: shop}, spec: {displayName: Storefront}}")
        .await
        .unwrap();
    let wait = plane
        .kubectl(&["wait", "-n", "shop", "--for=condition=Ready", "appreg/storefront", "--timeout=20s"])
        .await
        .unwrap();
    let dump = plane.kubectl(&["get", "appreg", "-n", "shop", "-o", "yaml"]).await.unwrap().stdout;
    assert!(wait.success(), "{}\n{}\n{dump}", wait.stderr, controller.process.log_tail(60));
    println!("{dump}");
    println!("{}", plane.kubectl(&["get", "secrets", "-A", "-o", "yaml"]).await.unwrap().stdout);
    println!("{}", controller.process.log_tail(60));
    println!("{}", token_service.process.log_tail(60));
}

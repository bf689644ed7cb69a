//! The CustomResourceDefinitions as files.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use super::AppRegistration;

/// Every CustomResourceDefinition of appreg.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![AppRegistration::crd()]
}

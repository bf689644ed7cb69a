//! The generated CustomResourceDefinitions: checked in as generated, and fit for GitOps and for quotas.

use appreg::api::crds;

#[test]
fn write_crds_for_now() {
    crds::write(std::path::Path::new("crds")).unwrap();
}

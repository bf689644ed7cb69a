//! The lists that replicas of the token service share: made here, empty, because the token service may write them and
//! create nothing. What is in them is never looked at.

use k8s_openapi::ByteString;

use crate::credential::Fields;
use crate::kubernetes::ObjectName;
use crate::shared_lists::{List, NAMES, REVOKED_FIELD, USED_FIELD};

use super::Context;
use super::keys::{Body, Problem, current, put};
use super::objects::LedgerObject;

/// Makes the lists that are not there: by POST, after a live 404.
pub(super) async fn upkeep(ctx: &Context) -> Result<(), Problem> {
    for name in NAMES {
        let object = ObjectName::new(&ctx.ledger_namespace, name);
        if matches!(ctx.state().world.ledger.value(&object), Some(LedgerObject::SharedList)) {
            continue;
        }
        if current(ctx, &object).await?.is_none() {
            let fields =
                [REVOKED_FIELD, USED_FIELD].map(|field| (field.to_owned(), ByteString(List::default().to_json())));
            put(ctx, &object, None, Body::opaque(Fields::from(fields))).await?;
        }
    }
    Ok(())
}

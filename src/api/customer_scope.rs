//! The customers whose data an application may touch.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::schema;

/// The customers whose data the application may access: all of them, or those listed.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = customer_scope_rules()))]
pub struct CustomerScope {
    /// All customers; or Customers, which are listed in customers; or Groups, which are listed in groups.
    #[serde(rename = "type")]
    pub type_: CustomerScopeType,

    /// The customers, for the type Customers only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 64, "x-kubernetes-list-type" = "set", "items" = schema::customer()))]
    pub customers: Vec<String>,

    /// The groups of customers, for the type Groups only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 64, "x-kubernetes-list-type" = "set", "items" = schema::customer()))]
    pub groups: Vec<String>,
}

fn customer_scope_rules() -> Value {
    json!([
        schema::rule_at(
            ".customers",
            "self.type != 'Customers' || (has(self.customers) && self.customers.size() > 0)",
            "customers must have an item for type Customers: list at least one",
        ),
        schema::rule_at(
            ".customers",
            "self.type == 'Customers' || !has(self.customers)",
            "customers must not be set for another type than Customers: remove it, or set that type",
        ),
        schema::rule_at(
            ".groups",
            "self.type != 'Groups' || (has(self.groups) && self.groups.size() > 0)",
            "groups must have an item for type Groups: list at least one",
        ),
        schema::rule_at(
            ".groups",
            "self.type == 'Groups' || !has(self.groups)",
            "groups must not be set for another type than Groups: remove it, or set that type",
        ),
    ])
}

/// What a [`CustomerScope`] lists.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[schemars(transform = schema::without_description)]
pub enum CustomerScopeType {
    /// Every customer.
    #[default]
    All,
    /// The customers listed.
    Customers,
    /// The groups listed.
    Groups,
}

//! A plan as text: for logs, tests and people. No value of a field stands in it, only where it comes from.

use std::fmt;

use super::{LedgerWrite, Order, Plan, SecretWrite, Step, Value};

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.look.registration {
            writeln!(f, "look at the registration")?;
        }
        for name in &self.look.secrets {
            writeln!(f, "look at Secret {name}")?;
        }
        for name in &self.look.approvals {
            writeln!(f, "look at approval {name}")?;
        }
        if !self.look.is_empty() {
            return Ok(());
        }
        for mint in &self.mints {
            let kind = match &mint.order {
                Order::ClientSecret => "clientSecret",
                Order::Certificate { .. } => "certificate",
                Order::AccessToken(_) => "accessToken",
            };
            write!(f, "mint {kind} `{}`", mint.entry)?;
            if mint.revision > 0 {
                write!(f, " revision {}", mint.revision)?;
            }
            writeln!(f, "  {} … {}  {}", mint.minted_at, mint.not_after, mint.reason)?;
        }
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        for condition in &self.status.conditions {
            write!(f, "{}={} {}", condition.type_, condition.status, condition.reason)?;
            if matches!(condition.type_.as_str(), "Stalled" | "Reconciling") || condition.status == "False" {
                write!(f, ": {}", condition.message)?;
            }
            f.write_str("\n")?;
        }
        match self.wake {
            Some(wake) => writeln!(f, "wake {wake}"),
            None => writeln!(f, "wake never"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept(accept) => {
                let how = match &accept.write {
                    LedgerWrite::Create => "create",
                    LedgerWrite::Replace { .. } => "replace",
                };
                write!(f, "accept {} ({how})  {}", accept.entry.client_id, accept.reason)?;
                for change in &accept.given {
                    write!(f, "\n  given `{}`", change.entry)?;
                    if change.revision > 0 {
                        write!(f, " revision {}", change.revision)?;
                    }
                    write!(f, " {}", change.reason)?;
                    if let Some(end) = change.not_after {
                        write!(f, ", until {end}")?;
                    }
                }
                Ok(())
            }
            Self::Publish(publish) => {
                let how = match &publish.write {
                    SecretWrite::Create => "create",
                    SecretWrite::Replace { .. } => "replace",
                };
                write!(f, "publish {} ({how})  {}", publish.name, publish.reason)?;
                for (field, value) in &publish.fields {
                    match value {
                        Value::Text(_) => {}
                        Value::Minted(entry) => write!(f, "\n  {field} ← minted for `{entry}`")?,
                        Value::Held(held) => write!(f, "\n  {field} ← held {held}")?,
                    }
                }
                Ok(())
            }
            Self::Remove(remove) => write!(f, "remove Secret {}", remove.name),
            Self::Retire(retire) => {
                write!(f, "retire")?;
                for (entry, revision, reason) in &retire.revisions {
                    write!(f, " `{entry}` revision {revision} {reason}")?;
                }
                for entry in &retire.entries {
                    write!(f, " `{entry}` EntryRemoved")?;
                }
                Ok(())
            }
        }
    }
}

//! Effects on console access.

use rustls::crypto::aws_lc_rs;

use super::Executor;
use crate::{
    api::Reason,
    aws::AwsErrorKind,
    cluster::SecretSnapshot,
    domain::{
        console::{self, ConsoleSecret},
        plan::Effect,
    },
    reconcile::error::ReconcileError,
};

impl Executor<'_> {
    /// Writes a new password into the Secret, marked pending. May leave a password that AWS does not have yet.
    pub(super) async fn write_password(&mut self) -> Result<(), ReconcileError> {
        let Some((desired, console)) =
            self.desired.and_then(|desired| desired.console.as_ref().map(|console| (desired, console)))
        else {
            return Ok(());
        };
        self.check_secret_access().await?;
        let iam = &self.iam;
        let policy = iam.get_password_policy().await?;
        let mut random = vec![0; console::password_length(policy) * console::RANDOM_BYTES_PER_CHARACTER];
        if aws_lc_rs::default_provider().secure_random.fill(&mut random).is_err() {
            return Err(ReconcileError::NoRandomness);
        }
        let account = &iam.caller_identity().await?.account;
        let alias = iam.get_account_alias().await?;
        let url = console::sign_in_url(&account.partition, alias.as_ref().unwrap_or(&account.id));
        let password = console::generate_password(&random);
        let content =
            console::render(&desired.target.owner, console, &desired.target.user_name, &password, url.as_deref());
        let secrets = self.secrets();
        let held = match &self.observed.console {
            Some(held) => secrets.replace(held, &content).await?,
            None => secrets.create(&console.secret_name, self.owner_reference(), &content).await?,
        };
        self.set_console(Some(held));
        Ok(())
    }

    /// Sets the password of the Secret in AWS, then marks it applied. Idempotent with the same password.
    pub(super) async fn apply_password(&mut self) -> Result<(), ReconcileError> {
        let Some(reset) =
            self.desired.and_then(|desired| desired.console.as_ref()).map(|console| console.reset_required)
        else {
            return Ok(());
        };
        let Some(held) = self.observed.console.clone() else { return Ok(()) };
        let content = held.content();
        let Some(password) = console::read_password(&content) else { return Ok(()) };
        let (iam, target) = (&self.iam, &self.owned_user(&Effect::ApplyPassword)?);
        let there = self.observed.current.user().and_then(|user| user.login_profile) == Some(true);
        let applied = if there {
            iam.update_login_profile(target, &password, reset).await
        } else {
            match iam.create_login_profile(target, &password, reset).await {
                // Created by this operator a moment ago; the response was lost.
                Err(error) if error.kind == AwsErrorKind::EntityAlreadyExists => {
                    iam.update_login_profile(target, &password, reset).await
                }
                answer => answer,
            }
        };
        applied.map_err(|error| ReconcileError::of_effect(error, Effect::ApplyPassword))?;
        self.apply_change(String::new(), |user| user.login_profile = Some(true));
        let marked = self.secrets().replace(&held, &console::mark_applied(content)).await?;
        self.set_console(Some(marked));
        let secret =
            self.desired.and_then(|desired| desired.console.as_ref()).map_or("", |console| &console.secret_name);
        self.record_event(Reason::PasswordSet, format!("set the console password; it is in Secret {secret}"));
        Ok(())
    }

    pub(super) async fn remove_password(&mut self) -> Result<(), ReconcileError> {
        self.iam
            .delete_login_profile(&self.owned_user(&Effect::RemovePassword)?)
            .await
            .map_err(|error| ReconcileError::of_effect(error, Effect::RemovePassword))?;
        self.apply_change("removed the console password".to_owned(), |user| user.login_profile = Some(false));
        Ok(())
    }

    pub(super) async fn delete_console_secret(&mut self) -> Result<(), ReconcileError> {
        if let Some(held) = &self.observed.console {
            self.secrets().delete(held).await?;
        }
        self.set_console(None);
        Ok(())
    }

    pub(super) async fn release_console_secret(&mut self) -> Result<(), ReconcileError> {
        if let Some(held) = &self.observed.console {
            self.secrets().release(held, &self.target.owner.uid).await?;
        }
        self.set_console(None);
        Ok(())
    }

    pub(super) fn set_console(&mut self, held: Option<SecretSnapshot>) {
        self.observed.current.console = held
            .as_ref()
            .map_or(ConsoleSecret::Missing, |held| ConsoleSecret::Ours(console::read_facts(&held.content())));
        self.observed.console = held;
    }
}

//! Deletes journals of resources that were removed without their finalizer. No lock is lost: the UID of a resource is never
//! used again, and a reconcile that still holds such a journal fails at its next conditional write.

use super::Context;
use crate::{
    cluster::{ClusterError, DeployUsers, Journals},
    domain::stale_journal::JournalRecord,
};

/// Journals that one call deletes at most; the next call continues.
const MAX_DELETIONS: usize = 100;

/// Lists the journals, and deletes those whose resource does not exist. `watched`: namespaces of this operator, all if empty.
/// Best effort; failures are logged.
pub async fn collect_stale_journals(context: &Context, watched: &[String]) {
    if let Err(error) = collect(context, watched).await {
        tracing::warn!(%error, "failed to collect stale journals, retrying in an hour");
    }
}

async fn collect(context: &Context, watched: &[String]) -> Result<(), ClusterError> {
    let journals = Journals::new(context.client.clone(), &context.namespace);
    let (mut after, mut deleted) = (None, 0);
    loop {
        let page = journals.list(after).await?;
        let known = context.resources.uids();
        let now = context.accounts.clock().now();
        for record in &page.records {
            if deleted >= MAX_DELETIONS {
                return Ok(());
            }
            if record.is_suspect(known.contains(&record.resource_uid), watched, now)
                && is_stale(context, record).await?
            {
                delete(&journals, record).await?;
                deleted += 1;
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// The watch may lag; the API server decides.
async fn is_stale(context: &Context, record: &JournalRecord) -> Result<bool, ClusterError> {
    let users = DeployUsers::new(context.client.clone(), &record.resource_namespace);
    let found = users.uid(&record.resource_name).await?;
    Ok(record.is_stale(found.as_deref()))
}

async fn delete(journals: &Journals, record: &JournalRecord) -> Result<(), ClusterError> {
    journals.delete(record).await?;
    tracing::warn!(
        journal = record.name,
        namespace = record.resource_namespace,
        resource = record.resource_name,
        user = record.user_name,
        account = record.account,
        "deleted the journal of an AwsDeployUser that was removed without its finalizer; check that the IAM user has no access key that is not in use"
    );
    Ok(())
}

//! Customer managed policies and their versions.
//!
//! Rules of the IAM API reference and quotas that the emulator lacks: names are unique in an account ignoring case and
//! path, paths have the format of policies, a policy is deleted last, versions are listed newest first without
//! documents, AWS managed policies cannot be changed, and a list has no more than the fields of AWS.

use std::time::Instant;

use roxmltree::{Document, Node};

use super::super::call::Call;
use super::super::response::{AwsError, AwsResponse};
use super::super::xml::{self, Edits};
use super::{Operation, names, paging, policies, tags};

/// More than an account can have: the emulator cuts lists at 100 otherwise.
pub(crate) const ALL_ITEMS: &str = "100000";

/// `CreatePolicy`.
pub(super) async fn create(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let name = operation.call.required("PolicyName")?;
    names::check_policy(name)?;
    if let Some(path) = operation.call.param("Path") {
        names::check_policy_path("path", path)?;
    }
    tags::check_request(&operation.call.tags())?;
    policies::check_document(operation.call.required("PolicyDocument")?)?;
    let _lock = operation.account().lock_policies(operation.account_ref()).await;
    let existing = xml::texts_in(&local_policies(operation).await?, "PolicyName");
    if existing.iter().any(|existing| existing.to_lowercase() == name.to_lowercase()) {
        return Err(AwsError::entity_already_exists(format!(
            "A policy called {name} already exists. Duplicate names are not allowed."
        )));
    }
    let quota = operation.account().settings().policies_quota;
    if existing.len() >= quota {
        return Err(AwsError::limit_exceeded(format!("Cannot exceed quota for PoliciesPerAccount: {quota}")));
    }
    let response = operation.forward().await?;
    if let Some(arn) = xml::text_in(&response.body, "Arn").filter(|_| response.is_success()) {
        operation.account().record_policy(operation.account_ref(), &arn, Instant::now());
    }
    Ok(amend(operation, response, "Policy"))
}

/// The customer managed policies of the account.
async fn local_policies(operation: &Operation<'_>) -> Result<String, AwsError> {
    operation.query(&Call::iam("ListPolicies").with("Scope", "Local").with("MaxItems", ALL_ITEMS)).await
}

/// The ARN of the policy in a call. Fails for a policy that is not visible yet.
fn visible_arn<'a>(operation: &'a Operation<'_>) -> Result<&'a str, AwsError> {
    let arn = operation.call.required("PolicyArn")?;
    policies::check_arn(arn)?;
    if operation.account().is_policy_hidden(operation.account_ref(), arn) {
        return Err(not_found(arn));
    }
    Ok(arn)
}

/// The ARN of the policy in a write. Only AWS changes its managed policies, whatever a caller is allowed.
fn changeable_arn<'a>(operation: &'a Operation<'_>) -> Result<&'a str, AwsError> {
    let arn = visible_arn(operation)?;
    if arn.contains(":iam::aws:policy/") {
        let caller = operation.account().caller_arn(operation.caller);
        return Err(AwsError::access_denied(&caller, &operation.call.iam_action(), &format!("policy {arn}")));
    }
    Ok(arn)
}

fn not_found(arn: &str) -> AwsError {
    AwsError::no_such_entity(format!("Policy {arn} was not found."))
}

/// The version in a call.
fn version_id<'a>(operation: &'a Operation<'_>) -> Result<&'a str, AwsError> {
    let id = operation.call.required("VersionId")?;
    let number = id.strip_prefix('v').map(|rest| rest.split_once('.').map_or(rest, |(number, _)| number));
    let valid =
        number.is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()) && n.bytes().next().is_some_and(|b| b > b'0'));
    if !valid {
        let pattern = "satisfy regular expression pattern: v[1-9][0-9]*(\\.[A-Za-z0-9-]*)?";
        return Err(AwsError::constraint(id, "versionId", pattern));
    }
    Ok(id)
}

/// The versions of a policy, oldest first, with whether each is the default.
async fn versions(operation: &Operation<'_>, arn: &str) -> Result<Vec<(String, bool)>, AwsError> {
    let found = operation.query(&Call::iam("ListPolicyVersions").with("PolicyArn", arn)).await;
    let body = found.map_err(|error| if error.code == "NoSuchEntity" { not_found(arn) } else { error })?;
    let ids = xml::texts_in(&body, "VersionId").into_iter();
    Ok(ids.zip(xml::texts_in(&body, "IsDefaultVersion").iter().map(|text| text == "true")).collect())
}

async fn check_version_exists(operation: &Operation<'_>, arn: &str, id: &str) -> Result<bool, AwsError> {
    let found = versions(operation, arn).await?.into_iter().find(|(known, _)| known == id);
    found.map(|(_, is_default)| is_default).ok_or_else(|| {
        AwsError::no_such_entity(format!("Policy {arn} version {id} does not exist or is not attachable."))
    })
}

/// `GetPolicy`.
pub(super) async fn get(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let arn = visible_arn(operation)?;
    let response = operation.forward().await?;
    if response.error_code().as_deref() == Some("NoSuchEntity") {
        return Err(not_found(arn));
    }
    Ok(amend(operation, response, "Policy"))
}

/// `GetPolicyVersion`.
pub(super) async fn get_version(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    check_version_exists(operation, visible_arn(operation)?, version_id(operation)?).await?;
    operation.forward().await
}

/// `ListPolicies`.
pub(super) async fn list(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    if let Some(scope) = operation.call.param("Scope") {
        names::check_enum("scope", scope, &["All", "AWS", "Local"])?;
    }
    if let Some(prefix) = operation.call.param("PathPrefix") {
        names::check_policy_path("pathPrefix", prefix)?;
    }
    let usage = usage_filter(operation)?;
    paging::list_after(operation, |response| {
        amend(operation, response, "Policies").edit_xml(|document, edits| {
            let (attached, boundaries) = ("AttachmentCount", "PermissionsBoundaryUsageCount");
            for policy in policy_elements(document, "Policies") {
                let is_used = |count: &str| xml::child_text(policy, count).is_some_and(|count| count != "0");
                let kept = usage.is_none_or(|usage| is_used(if usage == USAGES[0] { attached } else { boundaries }));
                if !kept {
                    edits.remove(policy);
                }
            }
        })
    })
    .await
}

const USAGES: [&str; 2] = ["PermissionsPolicy", "PermissionsBoundary"];

fn usage_filter<'a>(operation: &'a Operation<'_>) -> Result<Option<&'a str>, AwsError> {
    let usage = operation.call.param("PolicyUsageFilter");
    usage.map_or(Ok(()), |usage| names::check_enum("policyUsageFilter", usage, &USAGES))?;
    Ok(usage)
}

/// `ListPolicyVersions`.
pub(super) async fn list_versions(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    versions(operation, visible_arn(operation)?).await?;
    paging::list_after(operation, |response| {
        let newest_first = response.edit_xml(|document, edits| {
            let Some(list) = xml::find(document, "Versions") else { return };
            let mut members: Vec<&str> =
                xml::members(list).map(|member| &document.input_text()[member.range()]).collect();
            members.reverse();
            edits.replace(list, xml::wrap("Versions", &members.concat()));
        });
        without_documents(newest_first)
    })
    .await
}

/// AWS returns documents in `GetPolicyVersion` and `GetAccountAuthorizationDetails` only.
fn without_documents(response: AwsResponse) -> AwsResponse {
    response.edit_xml(|document, edits| {
        let documents = document.descendants().filter(|node| node.is_element() && node.tag_name().name() == "Document");
        documents.for_each(|node| edits.remove(node));
    })
}

/// `ListPolicyTags`.
pub(super) async fn list_tags(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    visible_arn(operation)?;
    paging::list(operation).await
}

/// `ListEntitiesForPolicy`. Users whose permissions boundary is the policy are entities too.
pub(super) async fn list_entities(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let arn = visible_arn(operation)?;
    check_exists(operation, arn).await?;
    let usage = usage_filter(operation)?;
    let of_users = operation.call.param("EntityFilter").is_none_or(|filter| filter == "User");
    let limited = if of_users && usage != Some(USAGES[0]) { limited_users(operation, arn).await? } else { Vec::new() };
    paging::list_after(operation, |response| {
        response.edit_xml(|document, edits| {
            let Some(users) = xml::find(document, "PolicyUsers") else { return };
            let attached: Vec<_> = xml::members(users).filter_map(|user| xml::child_text(user, "UserName")).collect();
            if usage == Some(USAGES[1]) {
                for list in ["PolicyGroups", "PolicyRoles", "PolicyUsers"] {
                    xml::find(document, list)
                        .into_iter()
                        .flat_map(xml::members)
                        .for_each(|member| edits.remove(member));
                }
            }
            let added =
                limited.iter().filter(|(name, _)| usage == Some(USAGES[1]) || !attached.contains(&name.as_str()));
            let added: String = added
                .map(|(name, id)| xml::wrap("member", &(xml::leaf("UserName", name) + &xml::leaf("UserId", id))))
                .collect();
            edits.append(users, &added);
        })
    })
    .await
}

/// The users that the policy is the boundary of, with their ids.
async fn limited_users(operation: &Operation<'_>, arn: &str) -> Result<Vec<(String, String)>, AwsError> {
    let mut users = Vec::new();
    for (user, boundary) in operation.account().boundaries(operation.account_ref()) {
        if boundary == arn {
            let found = operation.query(&Call::iam("GetUser").with("UserName", &user)).await?;
            users.push((user, xml::text_in(&found, "UserId").unwrap_or_default()));
        }
    }
    users.sort_unstable();
    Ok(users)
}

async fn check_exists(operation: &Operation<'_>, arn: &str) -> Result<(), AwsError> {
    match operation.query(&Call::iam("GetPolicy").with("PolicyArn", arn)).await {
        Ok(_) => Ok(()),
        Err(error) if error.code == "NoSuchEntity" => Err(not_found(arn)),
        Err(error) => Err(error),
    }
}

/// `CreatePolicyVersion`.
pub(super) async fn create_version(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let arn = changeable_arn(operation)?;
    policies::check_document(operation.call.required("PolicyDocument")?)?;
    let _lock = operation.account().lock_policies(operation.account_ref()).await;
    check_exists(operation, arn).await?;
    let response = operation.forward().await?;
    if response.is_success() {
        let created = xml::text_in(&response.body, "CreateDate");
        operation.account().record_policy_update(operation.account_ref(), arn, created);
    }
    Ok(without_documents(response))
}

/// `SetDefaultPolicyVersion`. The emulator ends up without a default if the version is the default already.
pub(super) async fn set_default_version(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let (arn, id) = (changeable_arn(operation)?, version_id(operation)?);
    let _lock = operation.account().lock_policies(operation.account_ref()).await;
    if check_version_exists(operation, arn, id).await? {
        return Ok(operation.success(""));
    }
    operation.forward().await
}

/// `DeletePolicyVersion`.
pub(super) async fn delete_version(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let (arn, id) = (changeable_arn(operation)?, version_id(operation)?);
    let _lock = operation.account().lock_policies(operation.account_ref()).await;
    if check_version_exists(operation, arn, id).await? {
        return Err(AwsError::delete_conflict("Cannot delete the default version of a policy."));
    }
    operation.forward().await
}

/// `DeletePolicy`, which fails while the policy is attached, used as a boundary, or has a version besides the default.
pub(super) async fn delete(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let arn = changeable_arn(operation)?;
    let _lock = operation.account().lock_policies(operation.account_ref()).await;
    let versions = versions(operation, arn).await?;
    let entities = operation.query(&Call::iam("ListEntitiesForPolicy").with("PolicyArn", arn)).await?;
    let attached = Document::parse(&entities).is_ok_and(|document| {
        ["PolicyGroups", "PolicyUsers", "PolicyRoles"]
            .iter()
            .filter_map(|list| xml::find(&document, list))
            .any(|list| xml::members(list).next().is_some())
    });
    let is_boundary = operation.account().boundaries(operation.account_ref()).values().any(|boundary| boundary == arn);
    if attached || is_boundary {
        return Err(AwsError::delete_conflict("Cannot delete a policy attached to entities."));
    }
    if versions.len() > 1 {
        return Err(AwsError::delete_conflict(
            "This policy has more than one version. Before you delete a policy, you must delete the policy's versions. \
             The default version is deleted with the policy.",
        ));
    }
    let response = operation.forward().await?;
    if response.is_success() {
        operation.account().forget_policy(operation.account_ref(), arn);
    }
    Ok(response)
}

/// `TagPolicy`.
pub(super) async fn tag(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let arn = changeable_arn(operation)?;
    let _lock = operation.account().lock_policies(operation.account_ref()).await;
    check_exists(operation, arn).await?;
    tags::tag(operation, &tags::Subject::policy(arn)).await
}

/// `UntagPolicy`.
pub(super) async fn untag(operation: &Operation<'_>) -> Result<AwsResponse, AwsError> {
    let arn = changeable_arn(operation)?;
    let _lock = operation.account().lock_policies(operation.account_ref()).await;
    check_exists(operation, arn).await?;
    tags::untag(operation, &tags::Subject::policy(arn)).await
}

/// Makes the policies of `GetAccountAuthorizationDetails` complete: the emulator omits their names and ids.
pub(super) async fn in_account_details(
    operation: &Operation<'_>,
) -> Result<impl FnOnce(AwsResponse) -> AwsResponse, AwsError> {
    let filters = operation.call.list("Filter");
    let listed = filters.is_empty() || filters.iter().any(|filter| filter.ends_with("ManagedPolicy"));
    let call = Call::iam("ListPolicies").with("MaxItems", ALL_ITEMS);
    let known = if listed { operation.query(&call).await? } else { String::new() };
    let ids: Vec<(String, String)> =
        xml::texts_in(&known, "Arn").into_iter().zip(xml::texts_in(&known, "PolicyId")).collect();
    Ok(move |response: AwsResponse| {
        amend(operation, response, "Policies").edit_xml(|document, edits| {
            for policy in policy_elements(document, "Policies") {
                let arn = xml::child_text(policy, "Arn").unwrap_or_default();
                let name = arn.rsplit('/').next().unwrap_or_default();
                let id = ids.iter().find(|(known, _)| known == arn).map(|(_, id)| id.as_str()).unwrap_or_default();
                edits.append(policy, &(xml::leaf("PolicyName", name) + &xml::leaf("PolicyId", id)));
            }
        })
    })
}

/// The policies of a response: the element itself, or the members of the list of this name.
fn policy_elements<'a, 'i>(document: &'a Document<'i>, element: &str) -> Vec<Node<'a, 'i>> {
    let Some(found) = xml::find(document, element) else { return Vec::new() };
    if xml::child(found, "Arn").is_some() { vec![found] } else { xml::members(found).collect() }
}

/// Adds what the account state knows about policies, and removes policies that are not visible yet.
fn amend(operation: &Operation<'_>, response: AwsResponse, element: &str) -> AwsResponse {
    if !response.is_success() {
        return response;
    }
    let (account, account_ref) = (operation.account(), operation.account_ref());
    let boundaries = account.boundaries(account_ref);
    let creates = operation.call.action == "CreatePolicy";
    response.edit_xml(|document, edits: &mut Edits<'_>| {
        for policy in policy_elements(document, element) {
            let arn = xml::child_text(policy, "Arn").unwrap_or_default();
            if !creates && account.is_policy_hidden(account_ref, arn) {
                edits.remove(policy);
                continue;
            }
            let limited = boundaries.values().filter(|boundary| *boundary == arn).count();
            edits.append(policy, &xml::leaf("PermissionsBoundaryUsageCount", &limited.to_string()));
            let updated = xml::child(policy, "UpdateDate");
            if let (Some(node), Some(at)) = (updated, account.policy_update(account_ref, arn)) {
                edits.set_text(node, &at);
            }
        }
    })
}

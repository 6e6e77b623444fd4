//! Users: names, tags, policies, boundaries, passwords, and deletion blockers.

use super::*;
use crate::aws_proxy::LoginProfileSnapshot;

#[tokio::test]
async fn user_names_collide_ignoring_case() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    operator.ok(&on("CreateUser", "Deploy-A")).await;
    for name in ["Deploy-A", "deploy-a", "DEPLOY-A"] {
        let (status, code, message) = operator.expect_error(&on("CreateUser", name)).await;
        assert_eq!((status, code.as_str()), (409, "EntityAlreadyExists"));
        assert_eq!(message, format!("User with name {name} already exists."));
    }
    // The same AWS after a restart of the test rig: the emulator has users, the account state is empty.
    let later = aws_for(Account::with_id(aws.account().id())).await;
    assert_eq!(Client::operator(&later).error_code(&on("CreateUser", "DEPLOY-a")).await, "EntityAlreadyExists");
    aws.manual_changes().delete_user("Deploy-A").await.unwrap();
    operator.ok(&on("CreateUser", "deploy-a")).await;
}

#[tokio::test]
async fn name_deleted_in_the_emulator_can_be_reused() {
    use crate::aws_proxy::upstream::Upstream;

    let aws = aws().await;
    let operator = Client::operator(&aws);
    operator.ok(&on("CreateUser", "u")).await;
    let emulator = Upstream::new(emulator()).unwrap();
    let deleted = emulator.send(&aws.account().home(), &on("DeleteUser", "u"), None).await.unwrap();
    assert!(deleted.is_success());
    operator.ok(&on("CreateUser", "U")).await;
}

#[tokio::test]
async fn reset_clears_keys_and_boundaries() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    operator.ok(&on("CreateUser", "u").with("PermissionsBoundary", ADMIN)).await;
    let key = operator.create_key("u").await;
    aws.account().reset();
    assert_eq!(Client::with_key(&aws, &key).caller_identity().await.unwrap_err(), "InvalidClientTokenId");
    assert_eq!(aws.inspector().user("u").await.unwrap().unwrap().boundary, None);
    operator.ok(&on("GetUser", "u")).await;
}

#[tokio::test]
async fn user_names_and_paths_are_validated() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    let long = "x".repeat(65);
    for call in [on("CreateUser", "bad name!"), on("CreateUser", &long), on("CreateUser", "u").with("Path", "nopath")] {
        assert_eq!(operator.error_code(&call).await, "ValidationError", "{call:?}");
    }
    assert_eq!(operator.error_code(&Call::iam("CreateUser")).await, "ValidationError");
    assert!(aws.inspector().user_names().await.unwrap().is_empty());
}

#[tokio::test]
async fn user_quota_is_enforced() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    assert_eq!(aws.account().settings().users_quota, 5000);
    aws.account().configure(|settings| settings.users_quota = 2);
    for user in ["a", "b"] {
        operator.ok(&on("CreateUser", user)).await;
    }
    let (status, code, message) = operator.expect_error(&on("CreateUser", "c")).await;
    assert_eq!((status, code.as_str()), (409, "LimitExceeded"));
    assert_eq!(message, "Cannot exceed quota for UsersPerAccount: 2");
    operator.ok(&on("DeleteUser", "a")).await;
    operator.ok(&on("CreateUser", "c")).await;
}

#[tokio::test]
async fn user_responses_have_the_aws_format() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    let created = operator.ok(&on("CreateUser", "u").with_tags([("awsdeploy.dev/uid", "1-2")])).await;
    let got = operator.ok(&on("GetUser", "u")).await;
    for body in [&created, &got] {
        assert!(text(body, "UserId").starts_with("AIDA"), "{body}");
        assert_eq!(text(body, "UserId").len(), 21);
        assert_eq!(text(body, "CreateDate").len(), "2026-11-21T21:53:20Z".len());
        assert_eq!(text(body, "Key"), "awsdeploy.dev/uid");
    }
    assert_eq!(text(&created, "UserId"), text(&got, "UserId"));
    assert_eq!(aws.inspector().user("u").await.unwrap().unwrap().id, text(&got, "UserId"));
}

#[tokio::test]
async fn user_with_deletion_blockers_cannot_be_deleted() {
    let aws = aws().await;
    let manual_changes = aws.manual_changes();
    let operator = Client::operator(&aws);
    operator.ok(&on("CreateUser", "u")).await;
    manual_changes.create_group("g").await.unwrap();
    let key = operator.create_key("u").await;
    let blocked = |message: &str| (409, "DeleteConflict".to_owned(), format!("Cannot delete entity, must {message}"));
    let delete = on("DeleteUser", "u");
    assert_eq!(operator.expect_error(&delete).await, blocked("delete access keys first."));
    manual_changes.deactivate_key("u", &key.id).await.unwrap();
    assert_eq!(operator.expect_error(&delete).await, blocked("delete access keys first."), "an inactive key counts");
    manual_changes.delete_key("u", &key.id).await.unwrap();

    manual_changes.create_login_profile("u", "Correct-horse-1").await.unwrap();
    assert_eq!(operator.expect_error(&delete).await, blocked("delete login profile first."));
    operator.ok(&on("DeleteLoginProfile", "u")).await;

    manual_changes.put_inline("u", "p", DOCUMENT).await.unwrap();
    assert_eq!(operator.expect_error(&delete).await, blocked("delete policies first."));
    manual_changes.delete_inline("u", "p").await.unwrap();

    manual_changes.attach("u", READ_ONLY).await.unwrap();
    assert_eq!(operator.expect_error(&delete).await, blocked("detach all policies first."));
    manual_changes.detach("u", READ_ONLY).await.unwrap();

    manual_changes.add_to_group("u", "g").await.unwrap();
    assert_eq!(operator.expect_error(&delete).await, blocked("remove users from group first."));
    assert_eq!(operator.error_code(&Call::iam("DeleteGroup").with("GroupName", "g")).await, "DeleteConflict");
    operator.ok(&on("RemoveUserFromGroup", "u").with("GroupName", "g")).await;

    let serial = operator.ok(&Call::iam("CreateVirtualMFADevice").with("VirtualMFADeviceName", "m")).await;
    let serial = text(&serial, "SerialNumber");
    let mfa = on("EnableMFADevice", "u").with("SerialNumber", &serial);
    operator.ok(&mfa.with("AuthenticationCode1", "123456").with("AuthenticationCode2", "654321")).await;
    assert_eq!(operator.expect_error(&delete).await, blocked("delete MFA device first."));
    operator.ok(&on("DeactivateMFADevice", "u").with("SerialNumber", &serial)).await;

    let ssh = on("UploadSSHPublicKey", "u").with("SSHPublicKeyBody", "ssh-rsa AAAA x");
    let ssh = text(&operator.ok(&ssh).await, "SSHPublicKeyId");
    assert_eq!(operator.expect_error(&delete).await, blocked("remove referenced objects first."));
    operator.ok(&on("DeleteSSHPublicKey", "u").with("SSHPublicKeyId", ssh)).await;

    let credential = on("CreateServiceSpecificCredential", "u").with("ServiceName", "codecommit.amazonaws.com");
    let credential = text(&operator.ok(&credential).await, "ServiceSpecificCredentialId");
    assert_eq!(operator.expect_error(&delete).await, blocked("remove referenced objects first."));
    let delete_credential = on("DeleteServiceSpecificCredential", "u").with("ServiceSpecificCredentialId", credential);
    operator.ok(&delete_credential).await;

    operator.ok(&delete).await;
    assert_eq!(operator.error_code(&delete).await, "NoSuchEntity");
    assert_eq!(operator.error_code(&delete_credential).await, "NoSuchEntity");
}

#[tokio::test]
async fn purge_user_deletes_all_deletion_blockers() {
    let aws = aws().await;
    let manual_changes = aws.manual_changes();
    manual_changes.create_tagged_user("u", &[("owner", "me")]).await.unwrap();
    manual_changes.create_group("g").await.unwrap();
    manual_changes.add_to_group("u", "g").await.unwrap();
    let key = manual_changes.create_key("u").await.unwrap();
    manual_changes.attach("u", ADMIN).await.unwrap();
    manual_changes.put_inline("u", "p", DOCUMENT).await.unwrap();
    manual_changes.create_key("u").await.unwrap();
    manual_changes.create_login_profile("u", "Correct-horse-1").await.unwrap();
    aws.account().configure(|settings| settings.page_size = 1);
    manual_changes.purge_user("u").await.unwrap();
    assert!(aws.inspector().user("u").await.unwrap().is_none());
    assert!(!aws.account().accepts(&key.id));
    assert!(aws.log().calls().is_empty(), "manual changes are not logged");
}

#[tokio::test]
async fn tags_are_limited_and_merge_ignoring_case() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    operator.ok(&on("CreateUser", "u").with_tags([("Owner", "a"), ("keep", "k")])).await;
    let tag = |tags: &[(&str, &str)]| on("TagUser", "u").with_tags(tags.iter().copied());
    operator.ok(&tag(&[("owner", "b")])).await;
    let tags = aws.inspector().user("u").await.unwrap().unwrap().tags;
    assert_eq!(tags.into_iter().collect::<Vec<_>>(), [("keep".into(), "k".into()), ("owner".into(), "b".into())]);

    assert_eq!(operator.error_code(&tag(&[("aws:x", "")])).await, "InvalidInput");
    assert_eq!(operator.error_code(&tag(&[("a", "1"), ("A", "2")])).await, "InvalidInput");
    assert_eq!(operator.error_code(&tag(&[("bad!", "")])).await, "ValidationError");
    let many: Vec<String> = (0..49).map(|n| format!("k{n}")).collect();
    let pairs = |n: usize| many[..n].iter().map(|key| (key.as_str(), "v")).collect::<Vec<_>>();
    let (status, code, _) = operator.expect_error(&tag(&pairs(49))).await;
    assert_eq!((status, code.as_str()), (409, "LimitExceeded"), "49 new and 2 existing tags");
    operator.ok(&tag(&pairs(48))).await;
    operator.ok(&tag(&pairs(48))).await;
    operator.ok(&on("UntagUser", "u").with("TagKeys.member.1", "KEEP").with("TagKeys.member.2", "absent")).await;
    assert!(!aws.inspector().user("u").await.unwrap().unwrap().tags.contains_key("keep"));
    let too_many = many.iter().map(|key| (key.as_str(), "")).chain([("x", ""), ("y", "")]);
    assert_eq!(operator.error_code(&on("CreateUser", "v").with_tags(too_many)).await, "ValidationError");
    assert!(aws.inspector().user("v").await.unwrap().is_none(), "a creation with invalid tags creates nothing");
}

#[tokio::test]
async fn attached_policies_must_exist_and_respect_the_quota() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    operator.ok(&on("CreateUser", "u")).await;
    let attach = |arn: &str| on("AttachUserPolicy", "u").with("PolicyArn", arn);
    let (status, code, message) = operator.expect_error(&attach("arn:aws:iam::aws:policy/NoSuchPolicy")).await;
    assert_eq!((status, code.as_str()), (404, "NoSuchEntity"));
    assert_eq!(message, "Policy arn:aws:iam::aws:policy/NoSuchPolicy does not exist or is not attachable.");
    assert_eq!(operator.error_code(&attach("arn:aws:iam::aws:policy/administratoraccess")).await, "NoSuchEntity");
    assert_eq!(operator.error_code(&attach("nonsense")).await, "InvalidInput");
    let linked = "arn:aws:iam::aws:policy/aws-service-role/AmazonElasticsearchServiceRolePolicy";
    assert_eq!(operator.expect_error(&attach(linked)).await.1, "PolicyNotAttachable");

    let mut arns = Vec::new();
    for n in 0..11 {
        arns.push(aws.manual_changes().create_policy(&format!("p{n}"), DOCUMENT).await.unwrap());
    }
    for arn in &arns[..10] {
        operator.ok(&attach(arn)).await;
    }
    operator.ok(&attach(&arns[0])).await;
    let (status, code, message) = operator.expect_error(&attach(&arns[10])).await;
    assert_eq!((status, code.as_str()), (409, "LimitExceeded"));
    assert_eq!(message, "Cannot exceed quota for PoliciesPerUser: 10");
    let policy = operator.ok(&Call::iam("GetPolicy").with("PolicyArn", &arns[0])).await;
    assert_eq!(text(&policy, "AttachmentCount"), "1", "attaching again is a no-op");
    let delete = |arn: &str| Call::iam("DeletePolicy").with("PolicyArn", arn);
    assert_eq!(operator.error_code(&delete(&arns[0])).await, "DeleteConflict");
    operator.ok(&delete(&arns[10])).await;
}

#[tokio::test]
async fn inline_policies_are_limited_to_2048_characters() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    operator.ok(&on("CreateUser", "u")).await;
    let document = |size: usize| {
        let frame = DOCUMENT.replace("s3:GetObject", "s3:");
        let spaced = frame.replace(',', ",\n    ");
        spaced.replace("s3:", &format!("s3:{}", "g".repeat(size - frame.len())))
    };
    let put = |name: &str, size: usize| {
        on("PutUserPolicy", "u").with("PolicyName", name).with("PolicyDocument", document(size))
    };
    let malformed = on("PutUserPolicy", "u").with("PolicyName", "c").with("PolicyDocument", "{}");
    assert_eq!(operator.error_code(&malformed).await, "MalformedPolicyDocument");
    operator.ok(&put("a", 1500)).await;
    operator.ok(&put("b", 548)).await;
    let (status, code, message) = operator.expect_error(&put("b", 549)).await;
    assert_eq!((status, code.as_str()), (409, "LimitExceeded"));
    assert_eq!(message, "Maximum policy size of 2048 bytes exceeded for user u");
    operator.ok(&put("a", 1400)).await;
    operator.ok(&put("b", 648)).await;
    let emoji = DOCUMENT.replace("s3:GetObject", "s3:\u{1f600}");
    let emoji = on("PutUserPolicy", "u").with("PolicyName", "c").with("PolicyDocument", emoji);
    assert_eq!(operator.error_code(&emoji).await, "ValidationError");
    let huge = Call::iam("CreatePolicy").with("PolicyName", "huge").with("PolicyDocument", document(6145));
    assert_eq!(operator.expect_error(&huge).await.2, "Cannot exceed quota for PolicySize: 6144");
    let inline = aws.inspector().user("u").await.unwrap().unwrap().inline;
    assert_eq!(inline.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(inline["a"]["Version"], "2012-10-17");
}

#[tokio::test]
async fn boundaries_are_shown_and_must_exist() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    let boundary = aws.manual_changes().create_policy("bound", DOCUMENT).await.unwrap();
    let missing = boundary.replace("bound", "absent");
    let create = |name: &str, arn: &str| on("CreateUser", name).with("PermissionsBoundary", arn);
    let (status, code, message) = operator.expect_error(&create("u", &missing)).await;
    assert_eq!((status, code.as_str()), (404, "NoSuchEntity"));
    assert_eq!(message, format!("Scope ARN: {missing} does not exist or is not attachable."));
    assert!(aws.inspector().user("u").await.unwrap().is_none());

    let shown = |body: &str| texts(body, "PermissionsBoundaryArn");
    assert_eq!(shown(&operator.ok(&create("u", &boundary)).await), [boundary.as_str()]);
    let got = operator.ok(&on("GetUser", "u")).await;
    assert_eq!((text(&got, "PermissionsBoundaryType"), shown(&got)), ("Policy".to_owned(), vec![boundary.clone()]));
    let details = Call::iam("GetAccountAuthorizationDetails").with("Filter.member.1", "User");
    assert_eq!(shown(&operator.ok(&details).await), [boundary.as_str()]);
    assert_eq!(shown(&operator.ok(&Call::iam("ListUsers")).await), [""; 0]);
    assert_eq!(operator.error_code(&Call::iam("DeletePolicy").with("PolicyArn", &boundary)).await, "DeleteConflict");

    operator.ok(&on("DeleteUserPermissionsBoundary", "u")).await;
    assert_eq!(shown(&operator.ok(&on("GetUser", "u")).await), [""; 0]);
    assert_eq!(operator.error_code(&on("DeleteUserPermissionsBoundary", "u")).await, "NoSuchEntity");
    let put = |user: &str, arn: &str| on("PutUserPermissionsBoundary", user).with("PermissionsBoundary", arn);
    assert_eq!(operator.error_code(&put("missing", &boundary)).await, "NoSuchEntity");
    assert_eq!(operator.error_code(&put("u", &missing)).await, "NoSuchEntity");
    operator.ok(&put("u", &boundary)).await;
    assert_eq!(aws.inspector().user("u").await.unwrap().unwrap().boundary, Some(boundary));
    operator.ok(&on("DeleteUser", "u")).await;
    operator.ok(&on("CreateUser", "u")).await;
    assert_eq!(shown(&operator.ok(&on("GetUser", "u")).await), [""; 0], "a recreated user has no boundary");
}

#[tokio::test]
async fn password_policy_and_reset_flag_are_enforced() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    operator.ok(&on("CreateUser", "u")).await;
    let create =
        |password: &str| on("CreateLoginProfile", "u").with("Password", password).with("PasswordResetRequired", "true");
    let (status, code, _) = operator.expect_error(&create("lowercase-only-it-is")).await;
    assert_eq!((status, code.as_str()), (400, "PasswordPolicyViolation"));
    let flag = |body: &str| text(body, "PasswordResetRequired");
    assert_eq!(flag(&operator.ok(&create("Correct-horse-1")).await), "true");
    assert_eq!(operator.error_code(&create("Correct-horse-1")).await, "EntityAlreadyExists");
    assert_eq!(flag(&operator.ok(&on("GetLoginProfile", "u")).await), "true");
    let reset = LoginProfileSnapshot { password_reset_required: true };
    assert_eq!(aws.inspector().user("u").await.unwrap().unwrap().login_profile, Some(reset));
    operator.ok(&on("UpdateLoginProfile", "u").with("Password", "Another-horse-1")).await;
    assert_eq!(flag(&operator.ok(&on("GetLoginProfile", "u")).await), "true", "an omitted parameter is unchanged");
    operator.ok(&on("UpdateLoginProfile", "u").with("PasswordResetRequired", "false")).await;
    assert_eq!(flag(&operator.ok(&on("GetLoginProfile", "u")).await), "false");
    operator.ok(&on("DeleteLoginProfile", "u")).await;
    assert_eq!(operator.error_code(&on("GetLoginProfile", "u")).await, "NoSuchEntity");
}

#[tokio::test]
async fn service_credential_password_is_shown_only_once() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    operator.ok(&on("CreateUser", "u")).await;
    let create = |service: &str| on("CreateServiceSpecificCredential", "u").with("ServiceName", service);
    assert_eq!(operator.error_code(&create("s3.amazonaws.com")).await, "NotSupportedService");
    let created = operator.ok(&create("codecommit.amazonaws.com")).await;
    assert!(!text(&created, "ServicePassword").is_empty());
    operator.ok(&create("codecommit.amazonaws.com")).await;
    assert_eq!(operator.error_code(&create("codecommit.amazonaws.com")).await, "LimitExceeded");
    let listed = operator.ok(&on("ListServiceSpecificCredentials", "u")).await;
    assert_eq!(texts(&listed, "ServiceSpecificCredentialId").len(), 2);
    assert!(texts(&listed, "ServicePassword").is_empty());
    assert_eq!(operator.error_code(&on("ListServiceSpecificCredentials", "missing")).await, "NoSuchEntity");
    assert_eq!(aws.inspector().user("u").await.unwrap().unwrap().service_credentials.len(), 2);
}

#[tokio::test]
async fn renamed_user_keeps_tags_keys_and_boundary() {
    let aws = aws().await;
    let operator = Client::operator(&aws);
    operator.ok(&on("CreateUser", "u").with("PermissionsBoundary", ADMIN).with_tags([("k", "v")])).await;
    operator.ok(&on("CreateUser", "taken")).await;
    let key = operator.create_key("u").await;
    let rename = |to: &str| on("UpdateUser", "u").with("NewUserName", to);
    assert_eq!(operator.error_code(&rename("TAKEN")).await, "EntityAlreadyExists");
    operator.ok(&rename("w")).await;
    let user = aws.inspector().user("w").await.unwrap().unwrap();
    assert_eq!((user.tags["k"].as_str(), user.boundary.as_deref()), ("v", Some(ADMIN)));
    assert_eq!(user.keys.len(), 1);
    assert!(Client::with_key(&aws, &key).caller_identity().await.unwrap().ends_with(":user/w"));
    assert_eq!(texts(&operator.ok(&on("ListAccessKeys", "w")).await, "UserName"), ["w"]);
    operator.ok(&on("CreateUser", "u")).await;
}

#[tokio::test]
async fn group_quota_per_user_is_enforced() {
    let aws = aws().await;
    aws.manual_changes().create_user("u").await.unwrap();
    for n in 0..11 {
        aws.manual_changes().create_group(&format!("g{n}")).await.unwrap();
    }
    for n in 0..10 {
        aws.manual_changes().add_to_group("u", &format!("g{n}")).await.unwrap();
    }
    aws.manual_changes().add_to_group("u", "g0").await.unwrap();
    let error = aws.manual_changes().add_to_group("u", "g10").await.unwrap_err();
    assert_eq!(error, AwsError::limit_exceeded("Cannot exceed quota for GroupsPerUser: 10"));
}

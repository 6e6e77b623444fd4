//! The least policies of `examples/policies`: accepted without a warning, of the size they name, and granting what they say.

use std::{fs, path::Path};

use awsdeploy_testkit::iam_policy::{Decision, Policy, Request};
use serde_json::Value;

use super::*;
use crate::{
    api::{AwsDeployUser, AwsDeployUserClass},
    domain::{authorize::template, policy},
};

/// Requests of one example: action, resource, and one condition key with its value.
type Calls<'a> = &'a [(&'a str, &'a str, Option<(&'a str, &'a str)>)];

struct Expected<'a> {
    file: &'a str,
    allowed: Calls<'a>,
    denied: Calls<'a>,
}

const TYPES: &str = "route53:ChangeResourceRecordSetsRecordTypes";
const NAMES: &str = "route53:ChangeResourceRecordSetsNormalizedRecordNames";
const ZONE: &str = "arn:aws:route53:::hostedzone/Z0123456789EXAMPLE";
const STATE: &str = "arn:aws:s3:::example-terraform-state/deploy/network/terraform.tfstate";
const LOCK: &str = "arn:aws:s3:::example-terraform-state/deploy/network/terraform.tfstate.tflock";
const SNAPSHOT: &str = "arn:aws:ec2:eu-central-1::snapshot/snap-1";
const PROJECT: &str = "arn:aws:codebuild:us-west-2:123456789012:project/DefangCD-1a2b";
const REGION: Option<(&str, &str)> = Some(("aws:RequestedRegion", "eu-central-1"));

const EXAMPLES: &[Expected<'_>] = &[
    Expected {
        file: "cdk.yaml",
        allowed: &[
            (
                "sts:AssumeRole",
                "arn:aws:iam::123456789012:role/cdk-hnb659fds-deploy-role-123456789012-eu-central-1",
                None,
            ),
            (
                "sts:AssumeRole",
                "arn:aws:iam::123456789012:role/cdk-hnb659fds-lookup-role-123456789012-eu-central-1",
                None,
            ),
        ],
        denied: &[
            // CloudFormation assumes it, and it usually is an administrator.
            (
                "sts:AssumeRole",
                "arn:aws:iam::123456789012:role/cdk-hnb659fds-cfn-exec-role-123456789012-eu-central-1",
                None,
            ),
            ("sts:AssumeRole", "arn:aws:iam::123456789012:role/cdk-hnb659fds-deploy-role-123456789012-us-east-1", None),
            (
                "sts:AssumeRole",
                "arn:aws:iam::210987654321:role/cdk-hnb659fds-deploy-role-210987654321-eu-central-1",
                None,
            ),
            ("cloudformation:CreateStack", "arn:aws:cloudformation:eu-central-1:123456789012:stack/x/1", None),
        ],
    },
    Expected {
        file: "cert-manager.yaml",
        allowed: &[
            ("route53:GetChange", "arn:aws:route53:::change/C1", None),
            ("route53:ListResourceRecordSets", ZONE, None),
            ("route53:ChangeResourceRecordSets", ZONE, Some((NAMES, "_acme-challenge.example.com"))),
            ("route53:ChangeResourceRecordSets", ZONE, Some((TYPES, "TXT"))),
        ],
        denied: &[
            ("route53:ChangeResourceRecordSets", ZONE, Some((NAMES, "www.example.com"))),
            ("route53:ChangeResourceRecordSets", ZONE, Some((TYPES, "A"))),
            ("route53:ChangeResourceRecordSets", "arn:aws:route53:::hostedzone/ZOTHER", Some((TYPES, "TXT"))),
            ("route53:DeleteHostedZone", ZONE, None),
        ],
    },
    Expected {
        file: "cycle.yaml",
        allowed: &[
            ("ec2:DescribeInstances", "*", REGION),
            ("ec2:CreateVpc", "arn:aws:ec2:eu-central-1:123456789012:vpc/vpc-1", None),
            ("ec2:CreateSubnet", "arn:aws:ec2:eu-central-1:123456789012:subnet/subnet-1", None),
            ("ec2:AuthorizeSecurityGroupIngress", "arn:aws:ec2:eu-central-1:123456789012:security-group/sg-1", None),
            ("ec2:RunInstances", "arn:aws:ec2:eu-central-1:123456789012:instance/*", None),
            ("ec2:RunInstances", "arn:aws:ec2:eu-central-1::image/ami-1", None),
            ("ec2:TerminateInstances", "arn:aws:ec2:eu-central-1:123456789012:instance/i-1", None),
            ("ec2:AllocateAddress", "arn:aws:ec2:eu-central-1:123456789012:elastic-ip/eipalloc-1", None),
        ],
        denied: &[
            ("ec2:DescribeInstances", "*", Some(("aws:RequestedRegion", "ap-south-1"))),
            ("ec2:RunInstances", "arn:aws:ec2:us-east-1:123456789012:instance/*", None),
            ("ec2:CreateSnapshot", "arn:aws:ec2:eu-central-1:123456789012:volume/vol-1", None),
            ("ec2:ModifyImageAttribute", "arn:aws:ec2:eu-central-1::image/ami-1", None),
            ("ec2:CreateVpcPeeringConnection", "arn:aws:ec2:eu-central-1:123456789012:vpc/vpc-1", None),
            ("iam:CreateServiceLinkedRole", "arn:aws:iam::123456789012:role/aws-service-role/x/x", None),
            ("elasticloadbalancing:CreateLoadBalancer", "*", REGION),
        ],
    },
    Expected {
        file: "defang.yaml",
        allowed: &[
            ("cloudformation:UpdateStack", "arn:aws:cloudformation:us-west-2:123456789012:stack/defang-cd/1", None),
            ("codebuild:StartBuild", PROJECT, None),
            ("s3:GetObject", "arn:aws:s3:::defang-cd-bucket-1/projects/shop/prod/project.pb", None),
            ("s3:PutObject", "arn:aws:s3:::defang-cd-bucket-1/uploads/x", None),
            ("ssm:PutParameter", "arn:aws:ssm:us-west-2:123456789012:parameter/Defang/shop/prod/KEY", None),
            ("logs:FilterLogEvents", "arn:aws:logs:us-west-2:123456789012:log-group:/Defang/shop/prod/logs", None),
            ("route53:ListHostedZonesByName", "*", None),
            ("route53:CreateReusableDelegationSet", "*", None),
            ("route53:ListReusableDelegationSets", "*", None),
        ],
        denied: &[
            ("cloudformation:DeleteStack", "arn:aws:cloudformation:us-west-2:123456789012:stack/defang-cd/1", None),
            ("cloudformation:UpdateStack", "arn:aws:cloudformation:us-west-2:123456789012:stack/other/1", None),
            ("codebuild:UpdateProject", PROJECT, None),
            ("codebuild:StartBuild", "arn:aws:codebuild:us-west-2:123456789012:project/other", None),
            ("iam:CreateRole", "arn:aws:iam::123456789012:role/x", None),
            ("iam:PassRole", "arn:aws:iam::123456789012:role/x", None),
            ("s3:PutObject", "arn:aws:s3:::defang-cd-bucket-1/projects/shop/prod/project.pb", None),
            ("ssm:PutParameter", "arn:aws:ssm:us-west-2:123456789012:parameter/Defang/other/prod/KEY", None),
        ],
    },
    Expected {
        file: "external-dns.yaml",
        allowed: &[
            ("route53:ListHostedZones", "*", None),
            ("route53:ListResourceRecordSets", ZONE, None),
            ("route53:ChangeResourceRecordSets", ZONE, Some((NAMES, "www.apps.example.com"))),
            ("route53:ChangeResourceRecordSets", ZONE, Some((TYPES, "CNAME"))),
        ],
        denied: &[
            ("route53:ChangeResourceRecordSets", ZONE, Some((NAMES, "www.example.com"))),
            ("route53:ChangeResourceRecordSets", ZONE, Some((NAMES, "xapps.example.com"))),
            ("route53:ChangeResourceRecordSets", ZONE, Some((TYPES, "NS"))),
            ("route53:ListResourceRecordSets", "arn:aws:route53:::hostedzone/ZOTHER", None),
        ],
    },
    Expected {
        file: "terraform-state.yaml",
        allowed: &[
            (
                "s3:ListBucket",
                "arn:aws:s3:::example-terraform-state",
                Some(("s3:prefix", "deploy/network/terraform.tfstate")),
            ),
            ("s3:GetObject", STATE, None),
            ("s3:PutObject", STATE, None),
            ("s3:PutObject", LOCK, None),
            ("s3:DeleteObject", LOCK, None),
        ],
        denied: &[
            ("s3:ListBucket", "arn:aws:s3:::example-terraform-state", Some(("s3:prefix", "dns/"))),
            ("s3:DeleteObject", STATE, None),
            ("s3:GetObject", "arn:aws:s3:::example-terraform-state/deploy/dns/terraform.tfstate", None),
            ("s3:GetObject", "arn:aws:s3:::example-terraform-state/other/network/terraform.tfstate", None),
            ("s3:DeleteBucket", "arn:aws:s3:::example-terraform-state", None),
        ],
    },
    Expected {
        file: "velero.yaml",
        allowed: &[
            ("s3:ListBucket", "arn:aws:s3:::example-velero", None),
            ("s3:PutObjectTagging", "arn:aws:s3:::example-velero/backups/x", None),
            ("ec2:DescribeVolumes", "*", None),
            ("ec2:CreateSnapshot", "arn:aws:ec2:eu-central-1:123456789012:volume/vol-1", None),
            ("ec2:CreateSnapshot", SNAPSHOT, None),
            ("ec2:CreateTags", SNAPSHOT, Some(("ec2:CreateAction", "CreateSnapshot"))),
        ],
        denied: &[
            ("ec2:CreateTags", SNAPSHOT, None),
            ("ec2:CreateTags", SNAPSHOT, Some(("ec2:CreateAction", "RunInstances"))),
            ("ec2:DeleteVolume", "arn:aws:ec2:eu-central-1:123456789012:volume/vol-1", None),
            ("ec2:ModifySnapshotAttribute", SNAPSHOT, None),
            ("ec2:CreateSnapshot", "arn:aws:ec2:us-east-1:123456789012:volume/vol-1", None),
            ("s3:GetObject", "arn:aws:s3:::example-other/x", None),
        ],
    },
];

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/policies")
}

/// The text of an example, and its document with the parameters of its resource.
fn example(file: &str) -> (String, Value) {
    let text = fs::read_to_string(folder().join(file)).unwrap();
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let class: AwsDeployUserClass = serde_json::from_value(objects[0].clone()).unwrap();
    let user: AwsDeployUser = serde_json::from_value(objects[1].clone()).unwrap();
    let declared = &user.spec.policies.documents[0];
    let template =
        class.spec.policies.templates.iter().find(|template| Some(&template.name) == declared.template.as_ref());
    let account = class.spec.account.as_ref().map(|account| account.id.as_str());
    let namespace = user.metadata.namespace.as_deref().unwrap();
    let own = template::builtin_values(namespace, user.metadata.name.as_deref(), account);
    (text, template::render(template.unwrap(), &declared.parameters, &own).unwrap())
}

#[test]
fn every_example_policy_is_expected_here() {
    let mut files: Vec<String> =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    assert_eq!(files, EXAMPLES.iter().map(|expected| expected.file).collect::<Vec<_>>());
}

#[test]
fn example_policies_have_neither_errors_nor_warnings() {
    for Expected { file, .. } in EXAMPLES {
        let (_, document) = example(file);
        assert_eq!(texts(&errors(&document)), [""; 0], "{file}");
        assert_eq!(texts(&warnings(&document)), [""; 0], "{file}");
    }
}

#[test]
fn example_policies_name_their_size_and_source() {
    for Expected { file, .. } in EXAMPLES {
        let (text, document) = example(file);
        let size = policy::counted_characters(&document);
        let thousands = if size < 1000 { size.to_string() } else { format!("{},{:03}", size / 1000, size % 1000) };
        assert!(text.contains(&format!("# Size: {thousands} characters\n")), "{file} has {size} characters");
        assert!(text.contains("\n# Source: "), "{file}");
        assert!(size <= policy::MAX_INLINE_CHARACTERS, "{file} does not fit as an inline policy: {size}");
    }
}

#[test]
fn example_policies_grant_what_they_say() {
    for Expected { file, allowed, denied } in EXAMPLES {
        let policy = Policy::parse(&example(file).1).unwrap();
        for (calls, expected) in [(allowed, Decision::Allowed), (denied, Decision::ImplicitDeny)] {
            for (action, resource, key) in *calls {
                let context = key.map(|(key, value)| (key, vec![value.to_owned()]));
                let request = Request::of_service(action, resource, context);
                assert_eq!(policy.evaluate(&request), expected, "{file}: {action} on {resource} {key:?}");
            }
        }
    }
}

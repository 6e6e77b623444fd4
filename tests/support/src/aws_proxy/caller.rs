//! The account that a call addresses, and the identity that makes it.

/// An account in a partition: one IAM namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AccountRef {
    /// Partition, for example `aws`, `aws-cn` or `aws-us-gov`.
    pub partition: &'static str,
    /// Account id of 12 digits.
    pub account: String,
}

impl AccountRef {
    /// An account of the commercial partition.
    #[must_use]
    pub fn aws(account: impl Into<String>) -> Self {
        Self { partition: "aws", account: account.into() }
    }

    /// The same account id in the partition of this region.
    #[must_use]
    pub fn in_region(&self, region: &str) -> Self {
        const PARTITIONS: [(&str, &str); 4] =
            [("cn-", "aws-cn"), ("us-gov-", "aws-us-gov"), ("eusc-", "aws-eusc"), ("us-iso-", "aws-iso")];
        let partition =
            PARTITIONS.iter().find(|(prefix, _)| region.starts_with(prefix)).map_or("aws", |(_, name)| name);
        Self { partition, account: self.account.clone() }
    }

    /// The region that hosts IAM in this partition.
    #[must_use]
    pub fn iam_region(&self) -> &'static str {
        match self.partition {
            "aws-cn" => "cn-north-1",
            "aws-us-gov" => "us-gov-west-1",
            "aws-eusc" => "eusc-de-east-1",
            "aws-iso" => "us-iso-east-1",
            _ => "us-east-1",
        }
    }

    /// An ARN of this account.
    #[must_use]
    pub fn arn(&self, service: &str, resource: &str) -> String {
        format!("arn:{}:{service}::{}:{resource}", self.partition, self.account)
    }
}

/// The authenticated caller of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The access key id; `None` for unsigned calls.
    pub key_id: Option<String>,
    /// The account and partition that the call addresses.
    pub account_ref: AccountRef,
    /// The identity behind the key.
    pub identity: Identity,
}

/// Kinds of identities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A key registered with [`Account::trust`](super::Account::trust): the operator under test.
    Trusted,
    /// The IAM user of a key created through a proxy of this account.
    User(String),
    /// A session from `AssumeRole` or another STS action that issues credentials.
    Session {
        /// ARN of the assumed role.
        arn: String,
        /// `AROA...:session`.
        id: String,
    },
    /// An unsigned call: `AssumeRoleWithWebIdentity` carries its token as a parameter.
    Anonymous,
    /// An administrator with all rights: the test itself, see [`super::ManualChanges`].
    Administrator,
}

impl Caller {
    /// The name of the calling IAM user; `None` for other identities.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match &self.identity {
            Identity::User(name) => Some(name),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn region_determines_the_partition() {
        let home = AccountRef::aws("123456789012");
        for (region, partition) in [
            ("us-east-1", "aws"),
            ("eu-central-1", "aws"),
            ("cn-northwest-1", "aws-cn"),
            ("us-gov-east-1", "aws-us-gov"),
            ("eusc-de-east-1", "aws-eusc"),
            ("us-iso-west-1", "aws-iso"),
        ] {
            assert_eq!(home.in_region(region).partition, partition, "{region}");
        }
        assert_eq!(home.in_region("cn-north-1").arn("iam", "user/u"), "arn:aws-cn:iam::123456789012:user/u");
    }
}

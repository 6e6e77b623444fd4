//! Where a call goes and who makes it.

/// One IAM name space: an account in a partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AccountRef {
    /// `aws`, `aws-cn`, `aws-us-gov`, ...
    pub partition: &'static str,
    /// Twelve digits.
    pub account: String,
}

impl AccountRef {
    /// An account of the commercial partition.
    #[must_use]
    pub fn aws(account: impl Into<String>) -> Self {
        Self { partition: "aws", account: account.into() }
    }

    /// The same account id seen from a region: the region decides on the partition.
    #[must_use]
    pub fn in_region(&self, region: &str) -> Self {
        const PARTITIONS: [(&str, &str); 4] =
            [("cn-", "aws-cn"), ("us-gov-", "aws-us-gov"), ("eusc-", "aws-eusc"), ("us-iso-", "aws-iso")];
        let partition =
            PARTITIONS.iter().find(|(prefix, _)| region.starts_with(prefix)).map_or("aws", |(_, name)| name);
        Self { partition, account: self.account.clone() }
    }

    /// The region where the partition keeps its IAM.
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

/// Who made a call, after the signature was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The access key id; none for unsigned calls.
    pub key_id: Option<String>,
    /// The account and partition the call goes to.
    pub account_ref: AccountRef,
    /// Who that is.
    pub identity: Identity,
}

/// The kinds of callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A key the account was told to trust: the operator under test.
    Trusted,
    /// An IAM user, by a key that was made through a proxy of this account.
    User(String),
    /// A session from `AssumeRole` and its kin.
    Session {
        /// ARN of the assumed role.
        arn: String,
        /// `AROA...:session`.
        id: String,
    },
    /// Nobody: `AssumeRoleWithWebIdentity` carries its proof in the call.
    Anonymous,
    /// A person with the console open: the test itself, see [`super::ManualChanges`].
    Administrator,
}

impl Caller {
    /// The IAM user behind the call, if it is one.
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
    fn the_region_decides_on_the_partition() {
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

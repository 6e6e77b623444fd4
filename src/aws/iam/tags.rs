//! Tags of a user.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    IamClient,
    convert::{map_to_tags, optional},
};
use crate::{aws::AwsError, domain::current_state::UserRef};

impl IamClient {
    /// Sets tags; others are kept.
    pub async fn tag_user(&self, user: &UserRef, tags: &BTreeMap<String, String>) -> Result<(), AwsError> {
        let request = self.iam.tag_user().user_name(user.name()).set_tags(Some(map_to_tags(tags)));
        self.call("TagUser", request.send()).await.map(drop)
    }

    /// Removes tags. A tag or a user that does not exist is no error.
    pub async fn untag_user(&self, user: &UserRef, keys: &BTreeSet<String>) -> Result<(), AwsError> {
        let request = self.iam.untag_user().user_name(user.name()).set_tag_keys(Some(keys.iter().cloned().collect()));
        optional(self.call("UntagUser", request.send()).await).map(drop)
    }
}

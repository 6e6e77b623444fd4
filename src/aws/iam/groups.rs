//! Groups of a user.

use std::collections::BTreeSet;

use super::{
    IamClient,
    convert::{optional, paginate},
};
use crate::{aws::AwsError, domain::current_state::UserRef};

impl IamClient {
    pub(super) async fn list_groups(&self, user: &str) -> Result<BTreeSet<String>, AwsError> {
        let request = self.iam.list_groups_for_user().user_name(user);
        paginate!(self, "ListGroupsForUser", request, groups, |group| Some(group.group_name().to_owned()))
    }

    /// Adds the user to a group.
    pub async fn add_to_group(&self, user: &UserRef, group: &str) -> Result<(), AwsError> {
        let request = self.iam.add_user_to_group().user_name(user.name()).group_name(group);
        self.call("AddUserToGroup", request.send()).await.map(drop)
    }

    /// Removes the user from a group. A user or group that does not exist is no error.
    pub async fn remove_from_group(&self, user: &UserRef, group: &str) -> Result<(), AwsError> {
        let request = self.iam.remove_user_from_group().user_name(user.name()).group_name(group);
        optional(self.call("RemoveUserFromGroup", request.send()).await).map(drop)
    }
}

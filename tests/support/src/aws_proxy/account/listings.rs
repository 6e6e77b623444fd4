//! Lists that are handed out page by page.

use std::sync::Arc;

use super::Account;

/// A page list that is being handed out piece by piece.
#[derive(Debug)]
pub(in crate::aws_proxy) struct Listing {
    pub(in crate::aws_proxy) question: String,
    pub(in crate::aws_proxy) items: Vec<(String, String)>,
}

impl Account {
    /// Keeps a listing for the pages that follow.
    pub(in crate::aws_proxy) fn keep_listing(&self, token: String, listing: Arc<Listing>) {
        // Some ten lists of 5,000 users, each with all its policies, or very many short ones.
        const ITEMS_KEPT: usize = 50_000;
        let mut state = self.state();
        state.listings.push_back((token, listing));
        let mut items: usize = state.listings.iter().map(|(_, listing)| listing.items.len()).sum();
        while items > ITEMS_KEPT && state.listings.len() > 1 {
            items -= state.listings.pop_front().map_or(0, |(_, listing)| listing.items.len());
        }
    }

    pub(in crate::aws_proxy) fn listing(&self, token: &str) -> Option<Arc<Listing>> {
        self.state().listings.iter().find(|(kept, _)| kept == token).map(|(_, listing)| listing.clone())
    }
}

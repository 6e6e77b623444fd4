//! Paged lists in progress.

use std::sync::Arc;

use super::Account;

/// The items of a paged list, fixed when its first page was read.
#[derive(Debug)]
pub(in crate::aws_proxy) struct Listing {
    pub(in crate::aws_proxy) request_key: String,
    pub(in crate::aws_proxy) items: Vec<(String, String)>,
}

impl Account {
    /// Stores a listing for the following pages, and evicts the oldest beyond the limit.
    pub(in crate::aws_proxy) fn store_listing(&self, token: String, listing: Arc<Listing>) {
        // About ten lists of 5,000 users with all their policies.
        const MAX_STORED_ITEMS: usize = 50_000;
        let mut state = self.state();
        state.listings.push_back((token, listing));
        let mut items: usize = state.listings.iter().map(|(_, listing)| listing.items.len()).sum();
        while items > MAX_STORED_ITEMS && state.listings.len() > 1 {
            items -= state.listings.pop_front().map_or(0, |(_, listing)| listing.items.len());
        }
    }

    pub(in crate::aws_proxy) fn listing(&self, token: &str) -> Option<Arc<Listing>> {
        self.state().listings.iter().find(|(kept, _)| kept == token).map(|(_, listing)| listing.clone())
    }
}

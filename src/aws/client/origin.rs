//! Whether a response is from AWS.
//!
//! The result of many operations is empty, and the SDK takes any response with status 2xx for it: a proxy or a captive portal
//! that answers with an empty page would have deleted a key.

use std::fmt;

use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        interceptors::{Intercept, context::AfterDeserializationInterceptorContextRef, dyn_dispatch_hint},
        runtime_components::RuntimeComponents,
    },
    http::Headers,
};
use aws_smithy_types::config_bag::ConfigBag;

/// Every response of AWS has it.
const REQUEST_ID: &str = "x-amzn-requestid";
/// Element of every response of IAM and STS, with a result or without.
const REQUEST_ID_ELEMENT: &str = "<RequestId>";

/// The request id of AWS in the headers of a response.
pub(super) fn request_id(headers: &Headers) -> Option<&str> {
    headers.get(REQUEST_ID).filter(|id| !id.is_empty())
}

/// A response with status 2xx that nothing shows to be from AWS. The call may have had its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotFromAws;

impl fmt::Display for NotFromAws {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the response has no request id of AWS")
    }
}

impl std::error::Error for NotFromAws {}

/// Refuses successes that are not from AWS.
#[derive(Debug)]
pub(super) struct OriginInterceptor;

#[dyn_dispatch_hint]
impl Intercept for OriginInterceptor {
    fn name(&self) -> &'static str {
        "OriginInterceptor"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        let body = response.body().bytes().unwrap_or_default();
        // The code of an error says whether it is one of AWS.
        let is_success = response.status().is_success();
        if is_success && !is_from_aws(response.headers(), body) { Err(NotFromAws.into()) } else { Ok(()) }
    }
}

/// A proxy may remove headers; then the XML has the request id.
fn is_from_aws(headers: &Headers, body: &[u8]) -> bool {
    let element = REQUEST_ID_ELEMENT.as_bytes();
    request_id(headers).is_some() || body.windows(element.len()).any(|window| window == element)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_or_element_shows_that_aws_has_answered() {
        let mut headers = Headers::new();
        let result = b"<DeleteUserResponse><ResponseMetadata><RequestId>0b1c</RequestId></ResponseMetadata></DeleteUserResponse>";
        for (body, expected) in [(&b""[..], false), (b"{}", false), (b"<html>RequestId</html>", false), (result, true)]
        {
            assert_eq!(is_from_aws(&headers, body), expected, "{}", String::from_utf8_lossy(body));
        }
        headers.insert(REQUEST_ID, "");
        assert!(!is_from_aws(&headers, b""), "an empty id is none");
        headers.insert(REQUEST_ID, "0b1c");
        assert!(is_from_aws(&headers, b""));
    }
}

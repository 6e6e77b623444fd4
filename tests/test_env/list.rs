//! Lists of tests that share one runtime and control plane.

use libtest_mimic::{Failed, Trial};

/// Name and function.
pub(crate) type Test = (&'static str, fn() -> Result<(), Failed>);

/// Wraps `async` functions for the shared runtime.
#[allow(unused_macros, reason = "used by the tests that are lists of functions")]
macro_rules! tests {
    ($($module:ident: { $($name:ident),+ $(,)? })+) => {
        &[$($((concat!(stringify!($module), "::", stringify!($name)), || $crate::test_env::run($module::$name()))),+),+]
    };
}

pub(crate) use tests;

/// The tests as libtest-mimic runs them.
pub(crate) fn trials(tests: &[Test]) -> Vec<Trial> {
    tests.iter().map(|&(name, test)| Trial::test(name, test)).collect()
}

//! The platform's request budget: so many per client and window, counted truly.

use std::collections::HashMap;
use std::time::Duration;

/// How much a client may ask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Allowance {
    /// Requests per window and client.
    pub requests: u32,
    /// Length of a window in real time; it begins with a client's first request.
    pub window: Duration,
}

/// Where a client stands after a request, as the reply's headers tell it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Standing {
    /// Requests counted in this window, refused ones too.
    pub count: u32,
    pub allowed: u32,
    /// Until the window ends.
    pub left: Duration,
}

impl Standing {
    pub(crate) fn exceeded(self) -> bool {
        self.count > self.allowed
    }

    /// Whole seconds until the window ends, rounded up: waiting them is enough.
    pub(crate) fn reset_seconds(self) -> u64 {
        self.left.as_millis().div_ceil(1_000) as u64
    }
}

/// Times are monotonic, since the simulator started. Clients are known ones, so the
/// table is bounded by the organisation's list of them.
#[derive(Debug)]
pub(crate) struct Budgets {
    allowance: Allowance,
    windows: HashMap<String, (Duration, u32)>,
}

impl Budgets {
    pub(crate) fn new(allowance: Allowance) -> Self {
        Self { allowance, windows: HashMap::new() }
    }

    pub(crate) fn allowance(&self) -> Allowance {
        self.allowance
    }

    /// Counts one request.
    pub(crate) fn count(&mut self, client: &str, now: Duration) -> Standing {
        let Allowance { requests: allowed, window } = self.allowance;
        let (began, count) = self.windows.entry(client.to_owned()).or_insert((now, 0));
        if now >= *began + window {
            (*began, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        Standing { count: *count, allowed, left: (*began + window).saturating_sub(now) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_its_own_budget_and_gets_it_back_when_the_window_ends() {
        let window = Duration::from_secs(60);
        let mut budgets = Budgets::new(Allowance { requests: 2, window });
        let at = Duration::from_millis;
        assert!(!budgets.count("a", at(500)).exceeded());
        assert!(!budgets.count("a", at(600)).exceeded());
        let third = budgets.count("a", at(700));
        assert_eq!(third, Standing { count: 3, allowed: 2, left: at(59_800) });
        assert!(third.exceeded());
        assert_eq!(third.reset_seconds(), 60);
        assert!(!budgets.count("b", at(700)).exceeded());
        assert!(budgets.count("a", at(60_499)).exceeded());
        let fresh = budgets.count("a", at(60_500));
        assert_eq!((fresh.count, fresh.left), (1, window));
    }
}

//! What several test binaries share, one file per idea.
#![allow(dead_code)] // each binary uses its own part

pub(crate) mod certificates;
pub(crate) mod checker;
pub(crate) mod collector;
pub(crate) mod counting;
pub(crate) mod enrichment;
pub(crate) mod evidence;
pub(crate) mod flow_checker;
pub(crate) mod kafka;
pub(crate) mod postgres;
pub(crate) mod postgres_proxy;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod receiver;
pub(crate) mod recording;
pub(crate) mod records;
pub(crate) mod rollback_checker;
pub(crate) mod services;
pub(crate) mod simulated;
pub(crate) mod topics;

/// Asks again until `probe` answers, for half a minute at most.
pub(crate) async fn until<T, F, P>(what: &str, probe: P) -> T
where
    F: Future<Output = Option<T>>,
    P: FnMut() -> F,
{
    within(std::time::Duration::from_secs(30), what, probe).await
}

/// Asks again until `probe` answers, for `limit` at most.
pub(crate) async fn within<T, F, P>(limit: std::time::Duration, what: &str, mut probe: P) -> T
where
    F: Future<Output = Option<T>>,
    P: FnMut() -> F,
{
    let end = std::time::Instant::now() + limit;
    loop {
        if let Some(answer) = probe().await {
            return answer;
        }
        assert!(std::time::Instant::now() < end, "waited in vain for {what}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

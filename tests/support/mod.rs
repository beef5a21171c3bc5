//! What several test binaries share, one file per idea.
#![allow(dead_code)] // each binary uses its own part

pub mod checker;
pub mod counting;
pub mod enrichment;
pub mod evidence;
pub mod flow_checker;
pub mod kafka;
pub mod postgres;
pub mod postgres_proxy;
pub mod process;
pub mod proxy;
pub mod receiver;
pub mod records;
pub mod rollback_checker;
pub mod services;
pub mod simulated;
pub mod topics;

/// Asks again until `probe` answers, for half a minute at most.
pub async fn until<T, F, P>(what: &str, probe: P) -> T
where
    F: Future<Output = Option<T>>,
    P: FnMut() -> F,
{
    within(std::time::Duration::from_secs(30), what, probe).await
}

/// Asks again until `probe` answers, for `limit` at most.
pub async fn within<T, F, P>(limit: std::time::Duration, what: &str, mut probe: P) -> T
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

//! Which loops are stopped, as this instance knows it: read from the settings topic, told to
//! the actuators, to readiness and to the metrics.

use tokio::sync::watch;

use crate::health::{Health, Part};
use crate::kafka::global_table::GlobalTable;
use crate::metrics::LOOP_PAUSED;
use crate::model::pause::{Extent, PauseInForce, Pauses};
use crate::model::settings::Setting;

/// Follows `settings` until the table ends.
pub fn follow(settings: GlobalTable<Setting<'static>>, health: &Health) -> watch::Receiver<Pauses> {
    let (told, known) = watch::channel(Pauses::default());
    let signs: Vec<Sign> = Extent::every().map(|extent| Sign::of(extent, health)).collect();
    tokio::spawn(async move {
        let mut settings = settings;
        if !settings.caught_up().await {
            return;
        }
        loop {
            let now = Pauses::of(settings.entries().values().map(|setting| &**setting));
            signs.iter().for_each(|sign| sign.show(now.get(sign.extent)));
            told.send_if_modified(|known| {
                let changed = *known != now;
                if changed {
                    tracing::info!(paused = now.iter().count(), "which loops are paused has changed");
                    *known = now;
                }
                changed
            });
            if !settings.changed().await {
                return;
            }
        }
    });
    known
}

/// Where one pause is seen: in readiness and in the metrics.
struct Sign {
    extent: Extent,
    part: Part,
    gauge: metrics::Gauge,
}

impl Sign {
    fn of(extent: Extent, health: &Health) -> Self {
        let sign = Self {
            extent,
            part: health.part(&format!("pause.{extent}")),
            gauge: LOOP_PAUSED.gauge(&[extent.name()]),
        };
        sign.show(None);
        sign
    }

    fn show(&self, pause: Option<&PauseInForce>) {
        self.gauge.set(if pause.is_some() { 1.0 } else { 0.0 });
        match pause {
            Some(pause) => {
                self.part.impaired(format!("{} is {}, since {}", self.extent, pause.told(), pause.since));
            }
            None => self.part.ready(),
        }
    }
}

//! Where pollers hand on what the platform calls the things they observe.

use tokio::sync::mpsc;

use crate::model::name::{Kind, Named};

/// Takes names; clones hand them to the same. The default is that nobody wants to know.
#[derive(Clone, Debug, Default)]
pub struct Names(Option<mpsc::Sender<Named>>);

impl Names {
    /// Names, and where they arrive; `waiting` of them are held at most.
    pub fn channel(waiting: usize) -> (Self, mpsc::Receiver<Named>) {
        let (names, told) = mpsc::channel(waiting);
        (Self(Some(names)), told)
    }

    /// Never waits: a name that finds no room is told again with the next observation.
    pub fn tell(&self, kind: Kind, id: &str, name: Option<&str>) {
        let (Some(names), Some(name)) = (&self.0, name) else { return };
        if let Some(named) = Named::new(kind, id, name) {
            let _ = names.try_send(named);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_names_to_be_taken() {
        let (names, mut told) = Names::channel(1);
        for name in ["first", "second"] {
            names.tell(Kind::Campaign, "a", Some(name));
        }
        names.tell(Kind::Campaign, "b", None);
        assert_eq!(told.try_recv().map(|named| named.name), Ok("first".to_owned()));
        assert!(told.try_recv().is_err());
        Names::default().tell(Kind::Flow, "f", Some("Main menu"));
    }
}

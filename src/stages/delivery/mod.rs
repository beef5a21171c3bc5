//! Which of two flows takes a conversation while a new one is tried out: a canary by exact
//! share (`docs/delivery.md`).
//!
//! ```text
//! planned ─▶ step 1 ──advance──▶ step 2 ──▶ … ──▶ step at 100 % ──▶ done
//!              │ ▲                                   │
//!              │ └─ hold: something is missing       │
//!              └────────────── abort ◀───────────────┘   the candidate's share is 0 at once
//! ```

pub mod canary;
pub mod evidence;

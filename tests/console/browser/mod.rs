//! The console in a real browser: what it shows is what the database holds, and stays text.

mod canaries;
mod devtools;
mod freshness;
mod pages;
mod pictures;
mod scene;

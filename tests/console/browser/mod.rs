//! The console in a real browser: what it shows is what the database holds, and stays text.

mod devtools;
mod pages;
mod pictures;

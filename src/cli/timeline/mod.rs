//! A build's timeline as a picture: what ran when, what came from the cache, what to speed up.
//!
//! [`Recorder`] listens to the events of a build; [`layout`] decides where everything stands, without drawing; `svg` and `html` write.
//! Deliberately not here: the file. The command that builds writes it.

mod advice;
mod html;
mod layout;
mod path;
mod record;
mod svg;
mod text;

pub use record::{Recorder, Recording};

/// What the picture is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A page with the picture in it and the steps as a table.
    Html,
    /// The picture alone.
    Svg,
}

/// Draws a recording as one self-contained document: no script, no font, nothing fetched.
///
/// `name` is the title: what was built.
pub fn draw(recording: &Recording, name: &str, form: Form) -> String {
    let critical = path::critical(&recording.steps);
    let picture = layout::layout(recording, &critical);
    let advice = advice::advice(recording, &critical);
    match form {
        Form::Html => html::page(recording, &picture, &advice, name),
        Form::Svg => svg::document(recording, &picture, &advice, name),
    }
}

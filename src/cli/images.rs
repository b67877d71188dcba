//! `rootling images`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::environment::Environment;
use super::filter::{self, Filters};
use super::inspect::unknown_format;
use super::render;
use super::template::{self, Template};
use crate::build::is_unnamed;
use crate::dockerfile::glob::Glob;
use crate::error::Result;
use crate::oci::Reference;
use crate::store::{DiskUse, ImageRecord, Member, Store};

#[derive(clap::Args)]
pub struct Arguments {
    /// Only images whose name or ID begins like this, or whose name matches this pattern
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Only images for which this holds, repeated: reference=PATTERN, label=NAME[=VALUE], label!=NAME[=VALUE], dangling=BOOL,
    /// before=IMAGE, since=IMAGE, until=TIME, id=ID
    #[arg(long, short, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// How to print: table, json, a template such as `{{.ID}} {{.Size}}`, or `table TEMPLATE` for one with a header
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// Print IDs only
    #[arg(long, short)]
    quiet: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Don't shorten IDs
    #[arg(long)]
    no_trunc: bool,
    /// Measure what images take of the disk, apart and shared with others
    #[arg(long)]
    disk_use: bool,
    /// In which order
    #[arg(long, value_enum, default_value_t = Order::Created)]
    sort: Order,
    /// Print no header
    #[arg(long, short = 'n')]
    noheading: bool,
    /// Show all, which is always done
    #[arg(long, short, hide = true)]
    all: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Order {
    /// Newest first.
    Created,
    Id,
    #[value(alias = "name")]
    Repository,
    /// Largest first.
    Size,
    Tag,
}

/// One image under one name.
struct Row {
    record: ImageRecord,
    member: Member,
    disk: Option<DiskUse>,
}

pub fn execute(arguments: &Arguments, environment: &Environment) -> Result<()> {
    let _ = arguments.all;
    let Some(store) = environment.existing_store()? else {
        return print(arguments, &[]);
    };
    let filters = Filters::read(&arguments.filter, &store)?;
    let pattern = arguments.name.as_deref().filter(|name| Glob::is_wildcard(name)).map(filter::pattern_anywhere).transpose()?;
    let disk = if arguments.disk_use { Some(Measured::of(&store)?) } else { None };
    let mut rows = Vec::new();
    for record in store.images()? {
        let named = match (&arguments.name, &pattern) {
            (None, _) => true,
            (_, Some(pattern)) => filter::matches_anywhere(pattern, &record.reference),
            (Some(name), None) => begins(&record, name),
        };
        for member in record.members() {
            if named && filters.hold(&store, &record, &member)? {
                let disk = disk.as_ref().and_then(|disk| disk.find(&member));
                rows.push(Row { record: record.clone(), member, disk });
            }
        }
    }
    sort(&mut rows, arguments.sort);
    print(arguments, &rows)
}

/// The disk space of all images, since what is shown may share with what is not.
struct Measured(Vec<(Member, DiskUse)>);

impl Measured {
    fn of(store: &Store) -> Result<Self> {
        let images: Vec<Member> = store.images()?.iter().flat_map(ImageRecord::members).collect();
        let measured = store.disk_use(&images)?;
        Ok(Self(images.into_iter().zip(measured).collect()))
    }

    fn find(&self, wanted: &Member) -> Option<DiskUse> {
        self.0.iter().find(|(member, _)| member.manifest.digest == wanted.manifest.digest).map(|(_, disk)| *disk)
    }
}

fn begins(record: &ImageRecord, wanted: &str) -> bool {
    let id = wanted.strip_prefix("sha256:").unwrap_or(wanted);
    let ids = record.members().into_iter().map(|member| member.config).chain(record.index);
    record.reference.familiar().starts_with(wanted)
        || record.reference.to_string().starts_with(wanted)
        || ids.into_iter().any(|config| config.hex().starts_with(id))
}

fn sort(rows: &mut [Row], order: Order) {
    // The images of one name stay together where the order allows.
    rows.sort_by(|a, b| (&b.record.created, &a.record.reference).cmp(&(&a.record.created, &b.record.reference)));
    match order {
        Order::Created => {}
        Order::Id => rows.sort_by_key(|row| row.member.config),
        Order::Repository => rows.sort_by(|a, b| a.record.reference.cmp(&b.record.reference)),
        Order::Size => rows.sort_by_key(|row| std::cmp::Reverse(row.member.size)),
        Order::Tag => rows.sort_by(|a, b| a.record.reference.tag().cmp(&b.record.reference.tag())),
    }
}

fn print(arguments: &Arguments, rows: &[Row]) -> Result<()> {
    if arguments.quiet {
        rows.iter().for_each(|row| render::result(&id(row, arguments)));
        return Ok(());
    }
    match arguments.format.as_str() {
        "json" => {
            let mut seen = std::collections::BTreeSet::new();
            let firsts = rows.iter().filter(|row| seen.insert(row.record.reference.clone()));
            let list: Vec<_> = firsts.map(|first| json_of(first, rows)).collect();
            render::result(&serde_json::to_string_pretty(&list).expect("plain data"));
        }
        "table" => {
            let columns = columns(arguments, rows);
            let cells: Vec<Vec<String>> = rows.iter().map(|row| columns.iter().map(|(_, cell)| cell(row, arguments)).collect()).collect();
            let header: Vec<&str> = columns.iter().map(|(title, _)| *title).collect();
            print_table(&header, &cells, arguments);
        }
        format if template::is_template(format) => {
            let table = format.strip_prefix("table ");
            let template = Template::new(table.unwrap_or(format))?;
            let lines = rows.iter().map(|row| template.fill(&fields(row, arguments))).collect::<Result<Vec<_>>>()?;
            if table.is_none() {
                lines.iter().for_each(|line| render::filled(line));
                return Ok(());
            }
            let split = |line: &String| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
            let header = template.header();
            print_table(&header.split('\t').collect::<Vec<_>>(), &lines.iter().map(split).collect::<Vec<_>>(), arguments);
        }
        format => return Err(unknown_format(format, &["table", "json"])),
    }
    Ok(())
}

fn print_table(header: &[&str], rows: &[Vec<String>], arguments: &Arguments) {
    let text = render::table(header, rows);
    match (arguments.noheading, text.split_once('\n')) {
        (false, _) => render::result(&text),
        (true, Some((_, rows))) => render::result(rows),
        (true, None) => {}
    }
}

type Cell = fn(&Row, &Arguments) -> String;

/// Platforms are shown where a name has several.
fn columns(arguments: &Arguments, rows: &[Row]) -> Vec<(&'static str, Cell)> {
    let mut columns: Vec<(&'static str, Cell)> =
        vec![("REPOSITORY", |row, _| name(&row.record.reference).0), ("TAG", |row, _| name(&row.record.reference).1)];
    if rows.iter().any(|row| !row.record.others.is_empty()) {
        columns.push(("PLATFORM", |row, _| platform(row)));
    }
    if arguments.digests {
        columns.push(("DIGEST", |row, _| digest(row)));
    }
    columns.push(("IMAGE ID", id));
    columns.push(("CREATED", |row, _| created(row)));
    columns.push(("SIZE", |row, _| render::size(row.member.size)));
    if arguments.disk_use {
        columns.push(("SHARED", |row, _| row.disk.map_or_else(String::new, |disk| render::size(disk.shared))));
        columns.push(("UNIQUE", |row, _| row.disk.map_or_else(String::new, |disk| render::size(disk.unique))));
    }
    columns
}

/// Repository and tag; `<none>` where there is none.
fn name(reference: &Reference) -> (String, String) {
    let none = || "<none>".to_owned();
    if is_unnamed(reference) {
        return (none(), none());
    }
    (reference.familiar_repository(), reference.tag().map_or_else(none, str::to_owned))
}

fn id(row: &Row, arguments: &Arguments) -> String {
    if arguments.no_trunc { row.member.config.to_string() } else { row.member.config.short() }
}

fn platform(row: &Row) -> String {
    if row.record.has_image() { row.member.platform.to_string() } else { String::new() }
}

fn digest(row: &Row) -> String {
    row.member.manifest.digest.to_string()
}

fn created(row: &Row) -> String {
    let created = row.member.created.clone().unwrap_or_default();
    created.get(..19).unwrap_or(&created).replace('T', " ")
}

/// How long ago, in docker's words.
fn since(row: &Row) -> String {
    let Some(at) = filter::created(row.member.created.as_deref()) else { return String::new() };
    let seconds = Timestamp::now().as_second().saturating_sub(at.as_second()).max(0);
    const UNITS: [(i64, &str); 6] =
        [(365 * 86400, "year"), (30 * 86400, "month"), (7 * 86400, "week"), (86400, "day"), (3600, "hour"), (60, "minute")];
    let (count, unit) =
        UNITS.iter().find(|(length, _)| seconds >= *length).map_or((seconds, "second"), |(length, unit)| (seconds / length, unit));
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

fn member_json(member: &Member, disk: Option<DiskUse>) -> Value {
    let mut value = json!({
        "id": member.config,
        "digest": member.manifest.digest,
        "created": member.created,
        "size": member.size,
        "platform": member.platform.to_string(),
    });
    if let (Some(map), Some(disk)) = (value.as_object_mut(), disk) {
        map.insert("shared".into(), disk.shared.into());
        map.insert("unique".into(), disk.unique.into());
    }
    value
}

/// One object a name; what it means alone, and all its images where there are several.
fn json_of(first: &Row, rows: &[Row]) -> Value {
    let (repository, tag) = name(&first.record.reference);
    let mut value =
        json!({ "reference": first.record.reference.to_string(), "repository": repository, "tag": tag, "index": first.record.index });
    let images: Vec<Value> =
        rows.iter().filter(|row| row.record.reference == first.record.reference).map(|row| member_json(&row.member, row.disk)).collect();
    if let (Some(map), Value::Object(alone)) = (value.as_object_mut(), member_json(&first.member, first.disk)) {
        map.extend(alone);
        if !first.record.others.is_empty() {
            map.insert("images".into(), images.into());
        }
    }
    value
}

/// By docker's and podman's names.
fn fields(row: &Row, arguments: &Arguments) -> Value {
    let (repository, tag) = name(&row.record.reference);
    json!({
        "Repository": repository,
        "Tag": tag,
        "Name": row.record.reference.familiar(),
        "Names": [row.record.reference.to_string()],
        "ID": id(row, arguments),
        "Digest": digest(row),
        "Created": row.member.created,
        "CreatedAt": created(row),
        "CreatedSince": since(row),
        "Size": render::size(row.member.size),
        "VirtualSize": render::size(row.member.size),
        "Bytes": row.member.size,
        "SharedSize": row.disk.map(|disk| render::size(disk.shared)),
        "UniqueSize": row.disk.map(|disk| render::size(disk.unique)),
        "Platform": platform(row),
        "Index": row.record.index,
    })
}

//! Templates for `--format`, as docker, podman and skopeo read them: the part of Go's text/template that people use there.
//!
//! `{{.Name}}`, `{{.Config.Env}}`, `{{json .X}}`, `{{index .X "key"}}`, `{{join .X ", "}}`, `{{len .X}}`, `{{upper .X}}`, `{{lower .X}}`,
//! `{{println .X}}`, pipelines, `{{range .X}}…{{end}}`, `{{if .X}}…{{else}}…{{end}}`, and `\n`, `\t` in the text. Names are found
//! whatever their case, since docker says `.ID` where podman says `.Id`.

use serde_json::Value;

use crate::error::{Error, Result, nearest, quote};

/// A template that was understood.
#[derive(Debug)]
pub struct Template {
    nodes: Vec<Node>,
}

#[derive(Debug)]
enum Node {
    Text(String),
    Print(Vec<Command>),
    Range { over: Vec<Command>, body: Vec<Node>, otherwise: Vec<Node> },
    If { when: Vec<Command>, body: Vec<Node>, otherwise: Vec<Node> },
}

/// A function and its arguments, or one argument alone.
#[derive(Debug)]
struct Command {
    function: Option<Function>,
    arguments: Vec<Argument>,
}

#[derive(Debug)]
enum Argument {
    Field(Vec<String>),
    Literal(Value),
}

#[derive(Clone, Copy, Debug)]
enum Function {
    Json,
    Index,
    Join,
    Len,
    Upper,
    Lower,
    Println,
}

const FUNCTIONS: [(&str, Function); 7] = [
    ("json", Function::Json),
    ("index", Function::Index),
    ("join", Function::Join),
    ("len", Function::Len),
    ("upper", Function::Upper),
    ("lower", Function::Lower),
    ("println", Function::Println),
];

/// Whether a format is a template and not the name of one.
pub fn is_template(format: &str) -> bool {
    format.contains("{{")
}

impl Template {
    /// Reads a template.
    pub fn new(text: &str) -> Result<Self> {
        let mut pieces = split(text).map_err(|why| wrong(text, &why))?.into_iter().peekable();
        let nodes = block(&mut pieces, Depth::Top).map_err(|why| wrong(text, &why))?;
        Ok(Self { nodes })
    }

    /// Fills it in.
    pub fn fill(&self, data: &Value) -> Result<String> {
        let mut out = String::new();
        write(&self.nodes, data, data, &mut out)?;
        Ok(out)
    }

    /// The names it prints, for a table's header.
    pub fn header(&self) -> String {
        let mut out = String::new();
        for node in &self.nodes {
            match node {
                Node::Text(text) => out.push_str(text),
                Node::Print(pipe) => {
                    let names = pipe.iter().flat_map(|command| &command.arguments);
                    let fields = names.filter_map(|argument| if let Argument::Field(path) = argument { path.last() } else { None });
                    out.push_str(&fields.map(|name| title(name)).collect::<Vec<_>>().join(" "));
                }
                Node::Range { .. } | Node::If { .. } => {}
            }
        }
        out
    }
}

/// `CreatedAt` as a column is `CREATED AT`.
fn title(name: &str) -> String {
    let mut out = String::new();
    let mut before_lower = false;
    for c in name.chars() {
        if c.is_uppercase() && before_lower {
            out.push(' ');
        }
        before_lower = c.is_lowercase();
        out.extend(c.to_uppercase());
    }
    out
}

fn wrong(text: &str, why: &str) -> Error {
    Error::input(format!("invalid template {}", quote(text)))
        .cause(why)
        .hint("a template reads `{{.Name}} {{json .Config}}`; `--format json` shows the names there are")
}

enum Piece {
    Text(String),
    Action(String),
}

fn split(text: &str) -> Result<Vec<Piece>, String> {
    let (mut pieces, mut rest, mut trim) = (Vec::new(), text, false);
    while let Some((before, after)) = rest.split_once("{{") {
        let (action, after) = after.split_once("}}").ok_or("`{{` has no `}}`")?;
        let (action, left) = action.strip_prefix("- ").map_or((action, false), |action| (action, true));
        let (action, right) = action.strip_suffix(" -").map_or((action, false), |action| (action, true));
        let before = if trim { before.trim_start() } else { before };
        let before = if left { before.trim_end() } else { before };
        if !before.is_empty() {
            pieces.push(Piece::Text(unescape(before)));
        }
        pieces.push(Piece::Action(action.trim().to_owned()));
        (rest, trim) = (after, right);
    }
    let rest = if trim { rest.trim_start() } else { rest };
    if !rest.is_empty() {
        pieces.push(Piece::Text(unescape(rest)));
    }
    Ok(pieces)
}

/// What docker's command line does to a template.
fn unescape(text: &str) -> String {
    text.replace("\\n", "\n").replace("\\t", "\t")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Top,
    Inside,
}

/// Nodes up to the end of the block, which is left to be read.
fn block(pieces: &mut std::iter::Peekable<std::vec::IntoIter<Piece>>, depth: Depth) -> Result<Vec<Node>, String> {
    let mut nodes = Vec::new();
    loop {
        match pieces.peek() {
            None if depth == Depth::Inside => return Err("a `range` or `if` has no `end`".into()),
            None => return Ok(nodes),
            Some(Piece::Action(word)) if word == "end" || word == "else" => {
                return if depth == Depth::Inside { Ok(nodes) } else { Err(format!("`{word}` ends nothing")) };
            }
            Some(_) => {}
        }
        match pieces.next() {
            Some(Piece::Text(text)) => nodes.push(Node::Text(text)),
            Some(Piece::Action(action)) => {
                let (word, rest) = action.split_once(' ').unwrap_or((&action, ""));
                if !matches!(word, "range" | "if") {
                    nodes.push(Node::Print(pipeline(&action)?));
                    continue;
                }
                let (head, body) = (pipeline(rest)?, block(pieces, Depth::Inside)?);
                let mut otherwise = Vec::new();
                if matches!(pieces.next(), Some(Piece::Action(word)) if word == "else") {
                    otherwise = block(pieces, Depth::Inside)?;
                    pieces.next();
                }
                nodes.push(match word {
                    "range" => Node::Range { over: head, body, otherwise },
                    _ => Node::If { when: head, body, otherwise },
                });
            }
            None => {}
        }
    }
}

fn pipeline(text: &str) -> Result<Vec<Command>, String> {
    let mut commands = vec![Vec::new()];
    for word in words(text)? {
        match word.as_str() {
            "|" => commands.push(Vec::new()),
            _ => commands.last_mut().expect("there is one").push(word),
        }
    }
    commands.into_iter().map(|words| command(&words)).collect()
}

/// Separated by spaces, which quotes keep; quotes stay.
fn words(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), None);
    for c in text.chars() {
        match (quoted, c) {
            (Some(quote), c) if c == quote => {
                word.push('"');
                quoted = None;
            }
            (Some(_), c) => word.push(c),
            (None, '"' | '`') => {
                word.push('"');
                quoted = Some(c);
            }
            (None, c) if c.is_whitespace() || c == '|' => {
                words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty()));
                words.extend((c == '|').then(|| "|".to_owned()));
            }
            (None, c) => word.push(c),
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    if quoted.is_some() { Err("a quote has no end".into()) } else { Ok(words) }
}

fn command(words: &[String]) -> Result<Command, String> {
    let (first, rest) = words.split_first().ok_or("there is nothing between the braces")?;
    if let Some((_, function)) = FUNCTIONS.iter().find(|(name, _)| name == first) {
        return Ok(Command { function: Some(*function), arguments: rest.iter().map(|word| argument(word)).collect::<Result<_, _>>()? });
    }
    match rest {
        [] => Ok(Command { function: None, arguments: vec![argument(first)?] }),
        _ => Err(format!("{} is no function; there are {}", quote(first), FUNCTIONS.map(|(name, _)| name).join(", "))),
    }
}

fn argument(word: &str) -> Result<Argument, String> {
    if let Some(text) = word.strip_prefix('"').and_then(|word| word.strip_suffix('"')) {
        return Ok(Argument::Literal(unescape(text).into()));
    }
    if let Ok(number) = word.parse::<u64>() {
        return Ok(Argument::Literal(number.into()));
    }
    let path =
        word.strip_prefix('.').ok_or_else(|| format!("{} is neither a field nor a function; fields begin with a dot", quote(word)))?;
    Ok(Argument::Field(path.split('.').filter(|name| !name.is_empty()).map(str::to_owned).collect()))
}

fn write(nodes: &[Node], dot: &Value, root: &Value, out: &mut String) -> Result<()> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Print(pipe) => out.push_str(&shown(&evaluate(pipe, dot, root)?)),
            Node::If { when, body, otherwise } => {
                write(if is_empty(&evaluate(when, dot, root)?) { otherwise } else { body }, dot, root, out)?;
            }
            Node::Range { over, body, otherwise } => {
                let items: Vec<Value> = match evaluate(over, dot, root)? {
                    Value::Array(items) => items,
                    Value::Object(map) => map.into_iter().map(|(_, value)| value).collect(),
                    _ => Vec::new(),
                };
                if items.is_empty() {
                    write(otherwise, dot, root, out)?;
                }
                items.iter().try_for_each(|item| write(body, item, root, out))?;
            }
        }
    }
    Ok(())
}

fn evaluate(pipe: &[Command], dot: &Value, root: &Value) -> Result<Value> {
    let mut last = None;
    for command in pipe {
        let mut values = command.arguments.iter().map(|argument| value(argument, dot, root)).collect::<Result<Vec<_>>>()?;
        values.extend(last.take());
        last = Some(apply(command.function, &values));
    }
    Ok(last.unwrap_or(Value::Null))
}

fn value(argument: &Argument, dot: &Value, root: &Value) -> Result<Value> {
    let path = match argument {
        Argument::Literal(value) => return Ok(value.clone()),
        Argument::Field(path) => path,
    };
    let mut at = dot;
    for (depth, name) in path.iter().enumerate() {
        match find(at, name) {
            Some(found) => at = found,
            // A name the listing does not have is a slip; what an image does not say is just not there.
            None if depth == 0 && std::ptr::eq(dot, root) => {
                let there: Vec<&str> = dot.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
                let error = Error::input(format!("there is no field {}", quote(format!(".{name}"))));
                return Err(match nearest(name, there.iter().copied()) {
                    Some(near) => error.hint(format!("did you mean {}?", quote(format!(".{near}")))),
                    None => error.hint(format!("there are {}", there.join(", "))),
                });
            }
            None => return Ok(Value::Null),
        }
    }
    Ok(at.clone())
}

fn find<'v>(at: &'v Value, name: &str) -> Option<&'v Value> {
    let map = at.as_object()?;
    map.get(name).or_else(|| map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value))
}

fn apply(function: Option<Function>, values: &[Value]) -> Value {
    let text = || values.iter().map(shown).collect::<Vec<_>>().join(" ");
    match (function, values) {
        (None, [.., last]) => last.clone(),
        (Some(Function::Json), [.., last]) => last.to_string().into(),
        (Some(Function::Upper), _) => text().to_uppercase().into(),
        (Some(Function::Lower), _) => text().to_lowercase().into(),
        (Some(Function::Println), _) => (text() + "\n").into(),
        (Some(Function::Len), [.., last]) => match last {
            Value::Array(items) => items.len().into(),
            Value::Object(map) => map.len().into(),
            other => shown(other).len().into(),
        },
        (Some(Function::Join), [Value::Array(items), separator]) => {
            items.iter().map(shown).collect::<Vec<_>>().join(&shown(separator)).into()
        }
        (Some(Function::Index), [first, keys @ ..]) => keys
            .iter()
            .try_fold(first, |at, key| match key {
                Value::Number(n) => at.get(usize::try_from(n.as_u64()?).ok()?),
                key => at.get(key.as_str()?),
            })
            .cloned()
            .unwrap_or(Value::Null),
        _ => Value::Null,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// As Go prints values.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            format!("map[{}]", map.iter().map(|(key, value)| format!("{key}:{}", shown(value))).collect::<Vec<_>>().join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fills_in() {
        let data = json!({
            "Id": "sha256:ab", "Config": { "Env": ["A=1", "B=2"], "Labels": { "x.y": "z" }, "Cmd": null }, "Size": 12, "Names": [],
        });
        for (template, expected) in [
            ("{{.Id}}", "sha256:ab"),
            ("{{ .ID }}\\t{{.size}}", "sha256:ab\t12"),
            ("{{.Config.Env}}", "[A=1 B=2]"),
            ("{{json .Config.Env}}", r#"["A=1","B=2"]"#),
            ("{{.Config.Env | json}}", r#"["A=1","B=2"]"#),
            ("{{index .Config.Labels \"x.y\"}} {{index .Config.Env 1}}", "z B=2"),
            ("{{range .Config.Env}}[{{.}}]{{end}}", "[A=1][B=2]"),
            ("{{range .Names}}x{{else}}none{{end}}", "none"),
            ("{{if .Config.Cmd}}cmd{{else}}no{{end}}", "no"),
            ("{{join .Config.Env \", \"}} {{len .Config.Env}} {{upper \"a|b\"}}", "A=1, B=2 2 A|B"),
            ("{{.Config.Labels}} {{.Config.Absent.More}}", "map[x.y:z] <no value>"),
            ("a {{- \" b\" -}} c", "a bc"),
            ("{{println .Id}}", "sha256:ab\n"),
        ] {
            assert_eq!(Template::new(template).unwrap().fill(&data).unwrap(), expected, "{template}");
        }
        assert_eq!(Template::new("{{.ID}}\\t{{.CreatedAt}}").unwrap().header(), "ID\tCREATED AT");
    }

    #[test]
    fn refuses() {
        for (template, expected) in [
            ("{{.Id", "no `}}`"),
            ("{{}}", "nothing between"),
            ("{{range .X}}", "no `end`"),
            ("{{end}}", "ends nothing"),
            ("{{frob .X}}", "`frob` is no function"),
            ("{{Id}}", "begin with a dot"),
            ("{{\"x}}", "no end"),
        ] {
            let error = Template::new(template).unwrap_err().to_string();
            assert!(error.contains(expected), "{template}: {error}");
        }
        let error = Template::new("{{.Digst}}").unwrap().fill(&json!({ "Digest": 1 })).unwrap_err();
        assert!(error.hints()[0].contains(".Digest"), "{error:?}");
    }
}

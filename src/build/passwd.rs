//! Users and groups of an image: names of USER and `--chown` to numbers, read from the image's own files.
//!
//! Formats: passwd(5), group(5). No NSS: the host's users mean nothing here.

use crate::error::{Error, Kind, Result, nearest, quote};
use crate::oci::ImagePath;
use crate::rootfs::view::View;

/// Who a process runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// User ID.
    pub uid: u32,
    /// Primary group ID.
    pub gid: u32,
    /// Supplementary groups: the primary one first, as container engines have it (CVE-2022-36109), then the user's others.
    pub groups: Vec<u32>,
    /// Home directory; `/` if the image does not say.
    pub home: String,
}

/// What an image's passwd and group files say.
#[derive(Debug, Default)]
pub struct Accounts {
    users: Vec<User>,
    groups: Vec<Group>,
}

#[derive(Debug)]
struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

#[derive(Debug)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Larger files are no account files.
const LIMIT: u64 = 16 << 20;

impl Accounts {
    /// Reads `/etc/passwd` and `/etc/group`; a missing file has no entries, a broken line is skipped as libc does.
    pub fn of(view: &View) -> Result<Self> {
        let text = |path| -> Result<String> {
            let bytes = view.read(&ImagePath::clean(path), LIMIT)?.unwrap_or_default();
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(Self::parse(&text("/etc/passwd")?, &text("/etc/group")?))
    }

    /// Reads the texts of both files.
    pub fn parse(passwd: &str, group: &str) -> Self {
        let user = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            Some(User { name, uid, gid, home: fields.nth(1).unwrap_or_default().to_owned() })
        };
        let entry = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            let gid = fields.nth(1)?.parse().ok()?;
            let members = fields.next().unwrap_or_default().split(',').map(|m| m.trim().to_owned()).collect();
            Some(Group { name, gid, members })
        };
        Self { users: passwd.lines().filter_map(user).collect(), groups: group.lines().filter_map(entry).collect() }
    }

    /// Who `USER user[:group]` names (image-spec, config.md, "User"; groups as runc finds them).
    ///
    /// An unknown number is taken as it is, with group 0; an unknown name is an error. Empty means root.
    pub fn identity(&self, user: &str) -> Result<Identity> {
        let (user, group) = split(user);
        let entry = match user {
            "" => self.users.iter().find(|u| u.uid == 0),
            name => self.users.iter().find(|u| u.name == name).or_else(|| {
                let uid: u32 = name.parse().ok()?;
                self.users.iter().find(|u| u.uid == uid)
            }),
        };
        let uid = match (entry, user) {
            (Some(entry), _) => entry.uid,
            (None, "") => 0,
            (None, user) => user.parse().map_err(|_| self.unknown_user(user))?,
        };
        let gid = match group {
            Some(group) => self.gid(group)?,
            None => entry.map_or(0, |e| e.gid),
        };
        // As runc does, an explicit group takes the place of all the user's own.
        let mut groups = vec![gid];
        if let (Some(entry), None) = (entry, group) {
            groups.extend(self.groups.iter().filter(|g| g.gid != gid && g.members.contains(&entry.name)).map(|g| g.gid));
        }
        let home = entry.map(|e| e.home.clone()).filter(|h| !h.is_empty()).unwrap_or_else(|| "/".into());
        Ok(Identity { uid, gid, groups, home })
    }

    /// The owner that `--chown=user[:group]` names, as BuildKit reads it: a named user brings its group, a number is its own group.
    pub fn owner(&self, text: &str) -> Result<(u32, u32)> {
        let (user, group) = split(text);
        let (uid, implied) = match user.parse::<u32>() {
            Ok(uid) => (uid, uid),
            Err(_) if user.is_empty() => (0, 0),
            Err(_) => {
                let entry = self.users.iter().find(|u| u.name == user).ok_or_else(|| self.unknown_user(user))?;
                (entry.uid, entry.gid)
            }
        };
        let gid = group.map_or(Ok(implied), |group| self.gid(group))?;
        Ok((uid, gid))
    }

    fn gid(&self, group: &str) -> Result<u32> {
        if let Some(entry) = self.groups.iter().find(|g| g.name == group) {
            return Ok(entry.gid);
        }
        group.parse().map_err(|_| {
            let error = Error::with_kind(Kind::NotFound, format!("unknown group {}", quote(group)));
            let error = error.cause("the image's /etc/group has no such group");
            match nearest(group, self.groups.iter().map(|g| g.name.as_str())) {
                Some(near) => error.hint(format!("did you mean {}?", quote(near))),
                None => error.hint("create it in an earlier RUN, or give its number"),
            }
        })
    }

    fn unknown_user(&self, user: &str) -> Error {
        let error = Error::with_kind(Kind::NotFound, format!("unknown user {}", quote(user)));
        let error = error.cause("the image's /etc/passwd has no such user");
        match nearest(user, self.users.iter().map(|u| u.name.as_str())) {
            Some(near) => error.hint(format!("did you mean {}?", quote(near))),
            None => error.hint("create it in an earlier RUN, or give its number"),
        }
    }
}

/// `user:group`; an empty group counts as none.
fn split(text: &str) -> (&str, Option<&str>) {
    match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|g| !g.is_empty())),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts::parse(
            "root:x:0:0:root:/root:/bin/sh\nbroken\napp:x:1000:1001::/home/app:/bin/sh\nnohome:x:7:7\n",
            "root:x:0:\nadm:x:4:app,other\nwww:x:33:app\nown:x:1001:app\n",
        )
    }

    #[test]
    fn identities() {
        for (user, uid, gid, groups, home) in [
            ("", 0, 0, &[0][..], "/root"),
            ("app", 1000, 1001, &[1001, 4, 33], "/home/app"),
            ("1000", 1000, 1001, &[1001, 4, 33], "/home/app"),
            ("app:www", 1000, 33, &[33], "/home/app"),
            ("4711", 4711, 0, &[0], "/"),
            ("4711:12", 4711, 12, &[12], "/"),
            ("nohome", 7, 7, &[7], "/"),
        ] {
            let expected = Identity { uid, gid, groups: groups.to_vec(), home: home.into() };
            assert_eq!(accounts().identity(user).unwrap(), expected, "{user}");
        }
        assert_eq!(accounts().identity("ap").unwrap_err().hints(), ["did you mean `app`?"]);
    }

    #[test]
    fn owners() {
        for (text, expected) in [("app", (1000, 1001)), ("12", (12, 12)), ("12:www", (12, 33)), ("app:5", (1000, 5)), (":www", (0, 33))] {
            assert_eq!(accounts().owner(text).unwrap(), expected, "{text}");
        }
        assert!(accounts().owner("nobody").is_err());
        assert!(accounts().owner("app:nogroup").is_err());
    }
}

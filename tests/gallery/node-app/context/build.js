const fs = require("fs");
fs.mkdirSync("dist");
for (const file of fs.readdirSync("src")) fs.copyFileSync(`src/${file}`, `dist/${file}`);

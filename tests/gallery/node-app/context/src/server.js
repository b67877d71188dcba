const { name, version } = require("../package.json");
console.log(name, version);

// The API's description at /docs, shown by Swagger UI.

const dark = matchMedia("(prefers-color-scheme: dark)");

function follow() {
  document.documentElement.classList.toggle("dark-mode", dark.matches);
}

follow();
dark.addEventListener("change", follow);

globalThis.SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#api",
  deepLinking: true,
  docExpansion: "list",
  filter: true,
  validatorUrl: null, // asks a server of others otherwise
  persistAuthorization: false, // a key does not outlive the page
  tryItOutEnabled: false,
});

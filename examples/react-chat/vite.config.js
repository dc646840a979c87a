import { defineConfig } from 'vite';

const { HEADRACE_URL = 'http://localhost:8000', HEADRACE_MODEL = 'demo/demo' } = process.env;

export default defineConfig({
  define: { HEADRACE_URL: JSON.stringify(HEADRACE_URL), MODEL: JSON.stringify(HEADRACE_MODEL) },
});

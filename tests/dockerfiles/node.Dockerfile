FROM node:22-slim
ENV NODE_ENV=production \
    PATH=/app/node_modules/.bin:$PATH
WORKDIR /app
COPY ["package.json", "package-lock.json", "./"]
RUN npm ci --omit=dev && npm cache clean --force
COPY --chown=node:node . .
USER node
HEALTHCHECK --interval=30s --timeout=3s --start-period=1m30s --retries=5 CMD ["node", "health.js"]
CMD ["node", "server.js"]
